//! Real files, cut after every node.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use acb_fuse::engine::{Array, Limits, dialect, tensors};
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::storage::{Links, Storage};
use acb_fuse::verify::last_bits::WeightRounding;
use acb_fuse::verify::sliced_run::SlicedRun;
use acb_fuse::verify::slices::Most;
use common::{data, models};
use rayon::prelude::*;

const GROUPS: [&str; 3] = ["blocks", "near_misses", "exporters"];

/// However a model is cut, the engine makes the same of it, to the last bit; and what it can
/// run in one piece, it can run in slices.
#[test]
fn slices_give_what_the_whole_gives() {
    let files: Vec<PathBuf> = GROUPS.into_iter().flat_map(models).collect();
    let compared = files.par_iter().filter(|path| {
        let folder = Storage::in_folder(path.parent().unwrap(), Links::Confined);
        let model = Model::index(fs::read(path).unwrap().into(), folder).unwrap();
        let inlined = dialect::inlined(&model).unwrap();
        let graphs = Graph::read_all(inlined.as_ref().unwrap_or(&model)).unwrap();
        let whole = walked(path, &graphs, usize::MAX);
        if whole.is_ok() {
            assert_eq!(walked(path, &graphs, 1), whole, "{path:?}");
        }
        whole.is_ok()
    });
    let compared = compared.count();
    assert!(compared > 450, "{compared}");
}

fn walked(path: &Path, graphs: &[Graph], nodes: usize) -> Result<Vec<Vec<Array>>, String> {
    let names: Vec<String> = graphs[0].inputs().into_iter().map(|(name, _)| name).collect();
    let types = names.iter().map(|name| graphs[0].input_type(graphs[0].find(name).unwrap()));
    let inputs = data(path, "input").into_iter().zip(types.map(Option::unwrap_or_default));
    let limits = Limits::of_reading();
    let inputs =
        tensors::from_arrays(inputs.collect(), limits).map_err(|error| error.to_string())?;
    let most = Most { nodes, bytes: usize::MAX };
    let walk = SlicedRun { graphs, weights: WeightRounding::AsStored, most, limits };
    walk.outputs(&names, &[inputs]).map_err(|stopped| stopped.to_string())
}
