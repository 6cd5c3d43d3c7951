//! Real files, cut after every node.
use std::fs;
use std::path::{Path, PathBuf};

use acb_fuse::engine::{Array, Limits, dialect, tensors};
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::storage::{Links, Storage};
use acb_fuse::verify::sliced_run::{Bridges, SlicedRun};
use acb_fuse::verify::slices::Most;

use crate::support::fixtures::{self, data};
use crate::support::parallel;

/// Cases of which a file is not run even in one piece.
const NOT_RUN: [&str; 24] = [
    "dropout_in_training_mode",
    "dropout_mask_is_output",
    "ends_of_activations",
    "float16_but_norms",
    "foreign_add",
    "foreign_conv",
    "foreign_norm",
    "function_of_other_opset",
    "kernel_not_evaluated",
    "kernel_standardised_by_computed_statistics",
    "loop_body",
    "no_operator_of_onnx",
    "opset1",
    "opset6",
    "opset6_dropout_mask_is_output",
    "quantized_kernel_in_another_order",
    "quantized_kernels",
    "sequences_have_no_common_name",
    "statistic_is_computed",
    "dropout",
    "negative_pad",
    "weights_sparse",
    "tensorflow_net_valid",
    "tensorflow_net_valid",
];

/// However a model is cut, the engine makes the same of it, to the last bit; and what it can
/// run in one piece, it can run in slices.
#[test]
fn slices_give_what_the_whole_gives() {
    let files = fixtures::of(|group| group.small);
    let compared = parallel::each(&files, |path| {
        let folder = Storage::in_folder(path.parent().unwrap(), Links::Confined);
        let model = Model::index(fs::read(path).unwrap().into(), folder).unwrap();
        let read = Graph::read_all(&model).unwrap();
        let flat = dialect::flattened(&model, &read).unwrap();
        let graphs = Graph::read_all(flat.as_ref().unwrap_or(&model)).unwrap();
        let whole = walked(path, &graphs, usize::MAX);
        if whole.is_ok() {
            assert_eq!(walked(path, &graphs, 1), whole, "{path:?}");
        }
        whole.is_ok()
    });
    let not_run = files.iter().zip(&compared).filter(|(_, compared)| !**compared);
    let folder = |(path, _): (&PathBuf, _)| {
        path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(not_run.map(folder).collect::<Vec<_>>(), NOT_RUN);
}

fn walked(path: &Path, graphs: &[Graph], nodes: usize) -> Result<Vec<Vec<Array>>, String> {
    let names: Vec<String> = graphs[0].inputs().into_iter().map(|(name, _)| name).collect();
    let types = names.iter().map(|name| graphs[0].input_type(graphs[0].find(name).unwrap()));
    let inputs = data(path, "input").into_iter().zip(types.map(Option::unwrap_or_default));
    let limits = Limits::of_reading();
    let inputs =
        tensors::from_arrays(inputs.collect(), limits).map_err(|error| error.to_string())?;
    let most = Most { nodes, bytes: usize::MAX };
    let bridges = Bridges::default();
    let sliced = SlicedRun::of(graphs, &names, &[inputs], &bridges).unwrap();
    sliced.outputs(most, limits).map_err(|stopped| stopped.to_string())
}
