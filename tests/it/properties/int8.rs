//! What int8 weights leave of the outputs, compared with values computed by hand.

use acb_fuse::Which;
use acb_fuse::engine::{Array, Limits};
use acb_fuse::equalize::int8::of_weights;
use acb_fuse::equalize::observed::RunnableModel;
use acb_fuse::facts::constants::Constants;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::storage::Storage;
use ndarray::{ArrayD, IxDyn};
use prost::Message;

use super::in_constant_nodes;
use crate::support::text;
use crate::support::tool::{converted, options};

/// The shape of the input, which is two ones; the kernel, which makes 127.4 and 12.7 of them from
/// rows of 127 and 0.4, and of 0 and 12.7; and the node that reads it, stored as the node wants.
const KERNELS: &[(&str, &str, &str)] = &[
    ("float[1,2,1,1]", "float[2,2,1,1] k = {127, 0.4, 0, 12.7}", "Conv (x, k)"),
    ("float[1,2,1,1]", "float[2,2,1,1] k = {127, 0, 0.4, 12.7}", "ConvTranspose (x, k)"),
    ("float[1,2]", "float[2,2] k = {127, 0, 0.4, 12.7}", "Gemm (x, k)"),
    ("float[1,2]", "float[2,2] k = {127, 0.4, 0, 12.7}", "Gemm <transB = 1> (x, k)"),
    ("float[1,2]", "float[2,2] k = {127, 0, 0.4, 12.7}", "MatMul (x, k)"),
];

/// With a step of 1 for the whole tensor, 0.4 becomes 0 and 12.7 becomes 13; with a step of 0.1
/// for the second channel, 12.7 stays.
#[test]
fn steps_are_those_of_tensors_or_of_output_channels() {
    let signal = 127.4f64.powi(2) + 12.7f64.powi(2);
    let decibels = |noise: f64| 10.0 * (signal / noise).log10();
    let expected = [decibels(0.4f64.powi(2) + 0.3f64.powi(2)), decibels(0.4f64.powi(2))];
    for (input, kernel, node) in KERNELS {
        let text = format!(
            r#"<ir_version: 8, opset_import: ["" : 17]> net ({input} x) => (float[1,2] y) <{kernel}> {{ y = {node} }}"#
        );
        let stored = text::model(&text).unwrap();
        let held = in_constant_nodes(&stored);
        for model in [stored, held] {
            let model = Model::index(model.encode_to_vec().into(), Storage::default()).unwrap();
            let graphs = Graph::read_all(&model).unwrap();
            let constants = Constants::find_all(&graphs, false).unwrap();
            let runnable = RunnableModel::of(&model, Limits::of_reading()).unwrap();
            let shape: &[usize] = if input.ends_with("1,1]") { &[1, 2, 1, 1] } else { &[1, 2] };
            let pieces = [vec![Array::Float(ArrayD::ones(IxDyn(shape)))]];
            let found = of_weights(&runnable, &graphs[0], &constants[0], &pieces).unwrap();
            let found = found.unwrap();
            for (found, expected) in [found.per_tensor, found.per_channel].iter().zip(expected) {
                assert!((found - expected).abs() < 1e-3, "{node}: {found}, and not {expected}");
            }
        }
    }
}

/// The figure is reported for the new model if it is asked for, unless the model has no kernel.
#[test]
fn it_is_told_if_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.onnx", "out.onnx"].map(|name| folder.path().join(name));
    let conv = "float[2,2,1,1] k, float[2] s";
    for (weights, nodes, is_asked, is_told) in [
        (conv, "a = Conv (x, k) b = Neg (a) y = Relu (b)", true, true),
        (conv, "a = Conv (x, k) b = Neg (a) y = Relu (b)", false, false),
        ("float[2] s", "a = Neg (x) y = Relu (a)", true, false),
    ] {
        let text = format!(
            r#"<ir_version: 8, opset_import: ["" : 17]> net (float[1,2,4,4] x) => (float[1,2,4,4] y) <{weights}> {{ {nodes} }}"#
        );
        std::fs::write(&input, text::model(&text).unwrap().encode_to_vec()).unwrap();
        let options = options(|options| {
            options.int8_outputs = is_asked;
            let ones = Array::Float(ArrayD::ones(IxDyn(&[1, 2, 4, 4])));
            options.run.given = vec![(Which::Numbered(0), ones)];
        });
        let told = converted(&input, &output, &options).int8_outputs;
        assert_eq!(told.map(|told| told.given), is_told.then_some(true), "{nodes}");
    }
}
