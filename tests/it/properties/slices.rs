//! Runs of real files that are cut after every node.
use std::fs;
use std::path::{Path, PathBuf};

use acb_fuse::engine::{Array, Engine, Limits, Source, dialect, tensors};
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::storage::{Links, Storage};
use acb_fuse::verify::compare::relative_error;
use acb_fuse::verify::float_types::FloatTypes;
use acb_fuse::verify::inputs::Random;
use acb_fuse::verify::sliced_run::{Bridges, SLICE_LIMITS, SlicedRun};
use acb_fuse::verify::slices::SliceLimits;
use prost::Message;

use crate::support::fixtures::{self, data};
use crate::support::parallel;
use crate::support::text;

/// Cases with a file that is not run even in one piece.
const NOT_RUN: [&str; 29] = [
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
    "pool_of_a_border_alone",
    "quantized_kernel_in_another_order",
    "quantized_kernels",
    "resized_by_cubic_terms",
    "sequences_have_no_common_name",
    "statistic_is_computed",
    "step_beyond_its_axes",
    "upsampled_between",
    "upsampled_by_one",
    "dropout",
    "negative_pad",
    "weights_sparse",
    "tensorflow_net_valid",
    "tensorflow_net_valid",
];

/// However a model is cut, the engine computes the same, to the last bit; and what it can run in
/// one piece, it can run in slices.
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
    let most = SliceLimits { nodes, bytes: usize::MAX };
    let bridges = Bridges::default();
    let types = FloatTypes::of(graphs).unwrap();
    let sliced = SlicedRun::of(graphs, &types, &names, &[inputs], &bridges).unwrap();
    sliced.outputs(most, limits).map_err(|stopped| stopped.to_string())
}

/// Weights that are larger than a slice, and the nodes that read them: the engine takes some of
/// their channels at a time, and computes the same as with all at once.
const LARGE: [(&str, &str); 6] = [
    ("float[2100,1024,1,1] k", "y = Conv (x, k)"),
    ("float[2100,1024,1,1] k, float[2100] b", "y = Conv (x, k, b)"),
    ("float[4200,512,1,1] k, float[4200] b", "y = Conv <group = 2> (x, k, b)"),
    ("float[1024,1,65,65] k", "y = Conv <group = 1024, pads = [32,32,32,32]> (x, k)"),
    (
        "float[2100,1024] k, float[2100] b",
        "f = Flatten (x) y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (f, k, b)",
    ),
    ("float[1024,2100] k", "f = Flatten (x) y = Gemm (f, k)"),
];

#[test]
fn a_large_convolution_is_run_some_channels_at_a_time() {
    for (weights, nodes) in LARGE {
        let text = format!(
            r#"<ir_version: 8, opset_import: ["" : 17]>
            net (float[2,1024,1,1] x) => (float[a,b,c,d] y) <{weights}> {{ {nodes} }}"#
        );
        let bytes = text::model(&text).unwrap().encode_to_vec();
        let model = Model::index(bytes.clone().into(), Storage::default()).unwrap();
        let graphs = Graph::read_all(&model).unwrap();
        let (limits, names) = (Limits::of_reading(), ["x".to_owned()]);
        let samples = [3, 4].map(|seed| Random::new(seed).noise(&[2, 1024, 1, 1]));
        let fed = samples.clone().map(|x| tensors::from_arrays(vec![(x, 1)], limits).unwrap());
        let bridges = Bridges::default();
        let types = FloatTypes::of(&graphs).unwrap();
        let sliced = SlicedRun::of(&graphs, &types, &names, &fed, &bridges).unwrap();
        let found = sliced.outputs(SLICE_LIMITS, limits).unwrap();
        let whole = Engine::load(
            Source::small(dialect::model(&model).unwrap().to_vec(), limits),
            &[vec![2, 1024, 1, 1]],
        )
        .unwrap();
        for (found, x) in found.iter().zip(samples) {
            let expected = whole.run(&[x]).unwrap();
            let error = relative_error(&expected[0], &found[0]);
            assert!(error < 1e-6, "{nodes}: {error:e}");
        }
    }
}
