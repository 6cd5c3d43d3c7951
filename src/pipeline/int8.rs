//! Runs the new model with int8 weights on one input, to tell what its outputs would be worth.
//!
//! Knows the rooms that feed and run models; decides nothing.

use std::sync::Arc;

use crate::engine::Limits;
use crate::equalize::int8::of_weights;
use crate::equalize::observed::RunnableModel;
use crate::equalize::unscaled::Unscaled;
use crate::facts::constants::Constants;
use crate::onnx::graph::Graph;
use crate::onnx::model::{Invalid, Model};
use crate::ops::scaling::is_quantized;
use crate::options::Options;
use crate::pipeline::given;
use crate::report::Int8Outputs;

/// Returns the signal-to-noise ratios of the outputs of `model` with int8 weights; `None` if it
/// is quantized already, cannot be fed or run, or has nothing to round.
///
/// # Errors
/// Returns an error if the model is malformed.
pub fn outputs(
    model: &Model,
    options: &Options,
    limits: Limits,
) -> Result<Option<Int8Outputs>, Invalid> {
    let graphs = Graph::read_all(model)?;
    let constants = Constants::find_all(&graphs, options.keep_overridable)?;
    let (Some(graph), Some(constants)) = (graphs.first(), constants.first().map(Arc::as_ref))
    else {
        return Ok(None);
    };
    if graph.nodes().any(|(_, node)| is_quantized(node)) {
        return Ok(None);
    }
    let Ok(samples) = given::samples(model, graph, &options.run)? else { return Ok(None) };
    let runnable = RunnableModel::of(model, limits)?;
    // The first piece tells as much as all of them.
    let first = samples.pieces.get(..1).unwrap_or_default();
    let found = match of_weights(&runnable, graph, constants, first) {
        Err(Unscaled::Invalid(wrong)) => return Err(wrong),
        found => found.ok().flatten(),
    };
    Ok(found.map(|sqnr| Int8Outputs::new(sqnr.per_tensor, sqnr.per_channel, samples.are_given)))
}
