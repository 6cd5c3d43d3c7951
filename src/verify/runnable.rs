//! Finds sizes at which a model runs whose file leaves them open: what a caller may fix them to.
//!
//! Knows the likely sizes and the engine; knows nothing of what another size would help with.

use crate::engine::{Engine, Limits, Source, dialect};
use crate::onnx::graph::Graph;
use crate::onnx::model::{Invalid, Model};
use crate::options::RunOptions;
use crate::verify::along::{FedInput, is_open};
use crate::verify::feeding::{self, BridgedNodes, Feed, Filling, Manner, Unfed};
use crate::verify::sizes::{batch_of_two, first_candidates};

/// Upper bound on the number of input elements at sizes that are tried for a hint.
pub const MOST_FOR_A_HINT: usize = 1 << 20;

/// The same bound where the model was run already: an image of 1080 rows has 6.2 million.
pub const MOST_ONCE_RUN: usize = 1 << 23;

/// Returns shapes of all open inputs at which `model`, whose main graph is `graph`, runs: the
/// first of the likely ones that have no more than `most` elements together. Returns no shapes
/// if it runs at none of them.
///
/// # Errors
/// Returns an error if an entry cannot be decoded.
pub fn shapes(
    model: &Model,
    graph: &Graph,
    options: &RunOptions,
    most: usize,
    limits: Limits,
) -> Result<Vec<(String, Vec<usize>)>, Invalid> {
    let inputs = match feeding::inputs(graph, options) {
        Ok(inputs) => inputs,
        Err(Unfed::NotRun(_)) => return Ok(Vec::new()),
        Err(Unfed::Invalid(error)) => return Err(error),
    };
    let fed: Vec<FedInput> = inputs.iter().map(|input| input.fed.clone()).collect();
    let mut candidates = first_candidates(&fed, &feeding::declared_axes(graph)?);
    candidates.push(batch_of_two(&fed));
    candidates.retain(|shapes| feeding::elements(shapes, 1).is_some_and(|all| all <= most));
    let (bytes, storage) = (dialect::model(model)?, model.storage.clone());
    let manner = Manner { filling: Filling::Noise, bridges: BridgedNodes::Misread };
    let runs = |shapes: &Vec<Vec<usize>>| {
        let (bytes, storage) = (bytes.clone(), storage.clone());
        let source = Source { bytes, constants: Vec::new(), storage, limits };
        let feed = Feed { inputs: &inputs, shapes, manner, seeds: 0..1 };
        let run =
            Engine::load(source, shapes).and_then(|engine| engine.run(&feeding::arrays(&feed)));
        run.is_ok()
    };
    let Some(shapes) = candidates.into_iter().find(runs) else { return Ok(Vec::new()) };
    let is_asked = |input: &FedInput| input.given.is_none() && input.axes.iter().any(is_open);
    let open = inputs.iter().zip(shapes).filter(|(input, _)| is_asked(&input.fed));
    Ok(open.map(|(input, shape)| (input.name.clone(), shape)).collect())
}
