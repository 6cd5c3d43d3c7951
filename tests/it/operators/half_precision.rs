//! Sums of products in float16, which the engine keeps in float32 and rounds once.

use acb_fuse::engine::{Array, Engine, dialect};
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use ndarray::{ArrayD, IxDyn};
use prost::Message;

use crate::support::engine::source;
use crate::support::text;

/// Nodes that sum 4096 ones, with the shapes of their input and of the kernel, both of ones.
const SUMS: &[(&str, &[usize], &[usize])] = &[
    ("Conv (x, k)", &[1, 4096, 1, 1], &[1, 4096, 1, 1]),
    ("Conv <pads = [1, 1, 1, 1]> (x, k)", &[1, 4096, 1, 1], &[1, 4096, 3, 3]),
    ("Conv <group = 2> (x, k)", &[1, 2, 64, 64], &[2, 1, 64, 64]),
    ("ConvTranspose (x, k)", &[1, 4096, 1, 1], &[4096, 1, 1, 1]),
    ("Gemm (x, k)", &[1, 4096], &[4096, 1]),
    ("MatMul (x, k)", &[1, 2, 4096], &[4096, 3]),
];

/// Rounded at each step, the sum would stop at 2048, to which float16 cannot add 1.
#[test]
fn sums_are_rounded_once() {
    for (node, input, kernel) in SUMS {
        let sizes = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>();
        let text = format!(
            r#"<ir_version: 8, opset_import: ["" : 17]>
            net (float16[{}] x) => (float16 y) <float16[{}] k> {{ y = {node} }}"#,
            sizes(input).join(","),
            sizes(kernel).join(","),
        );
        let mut model = text::model(&text).unwrap();
        let ones = ArrayD::ones(IxDyn(kernel));
        model.graph.as_mut().unwrap().initializer =
            vec![tensor::from_floats("k", &ones, Float::F16)];
        let model = Model::index(model.encode_to_vec().into(), Storage::default()).unwrap();
        let source = source(dialect::model(&model).unwrap(), None);
        let engine = Engine::load(source, &[input.to_vec()]).unwrap();
        let outputs = engine.run(&[Array::Float(ArrayD::ones(IxDyn(input)))]).unwrap();
        let Some(Array::Float(sums)) = outputs.first() else { panic!("{node}: {outputs:?}") };
        assert!(sums.iter().all(|&sum| sum == 4096.0), "{node}: {sums}");
    }
}
