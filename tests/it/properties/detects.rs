//! The run distinguishes rounding from mistakes. `mutants` tests how mistakes are caught.
use std::fs;

use acb_fuse::RunOptions;
use acb_fuse::engine::{Array, InputShapes, Limits};
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::type_proto;
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use acb_fuse::onnx::write;
use acb_fuse::verify::inputs::Random;
use acb_fuse::verify::outcome::Outcome;
use acb_fuse::verify::run::run;
use prost::Message;

use crate::support::tool::{converted, options};

/// Returns a model that subtracts two convolutions whose kernels differ only by 10⁻⁴ of random
/// weights and, at one place, of `difference`: rounding weighs ten thousand times as much as
/// elsewhere.
fn rounding_model(difference: f64) -> Vec<u8> {
    let mut random = Random::new(3);
    let mut kernel = || match random.floats(&[4, 4, 3, 3]) {
        Array::Float(kernel) => kernel,
        Array::Int(_) => panic!("kernels are floats"),
    };
    let (first, mut change) = (kernel(), kernel());
    change[[0, 0, 1, 1]] = difference;
    let second = &first + &(change * 1e-4);
    let weights = vec![
        tensor::from_floats("first", &first, Float::F32),
        tensor::from_floats("second", &second, Float::F32),
    ];
    let nodes = vec![
        write::node("Conv", "", &["x", "first"], "a", vec![]),
        write::node("Conv", "", &["x", "second"], "b", vec![]),
        write::node("Sub", "", &["a", "b"], "y", vec![]),
    ];
    let mut model = write::model(17, vec![write::double_input("x", 4)], nodes, weights, &["y"]);
    let declared = model.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap();
    if let Some(type_proto::Value::TensorType(tensor)) = declared.value.as_mut() {
        tensor.elem_type = Some(Float::F32.to_onnx());
    }
    model.encode_to_vec()
}

/// Rounding errors are no failure, and hide none.
#[test]
fn rounding_is_told_from_mistakes() {
    let mut run_options = RunOptions::default();
    run_options.shapes = InputShapes::from([("x".to_owned(), vec![1, 4, 9, 8])]);
    let folder = tempfile::tempdir().unwrap();
    let fused = |weight: f64| {
        let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
        fs::write(&input, rounding_model(weight)).unwrap();
        converted(&input, &output, &options(|options| options.verify = false));
        Model::index(fs::read(output).unwrap().into(), Storage::default()).unwrap()
    };
    let old = Model::index(rounding_model(0.5).into(), Storage::default()).unwrap();
    let right = run(&old, &fused(0.5), &run_options, Limits::of_reading()).unwrap();
    let is_in_pieces =
        matches!(&right, Outcome::Agreed(agreement) if agreement.in_pieces.is_some());
    assert!(is_in_pieces, "{right:?}");
    let wrong = run(&old, &fused(1.5), &run_options, Limits::of_reading()).unwrap();
    assert!(matches!(wrong, Outcome::Differs { .. }), "{wrong:?}");
    // A tolerance that the user gives holds for rounding errors, too.
    let mut strict = run_options;
    strict.tolerance = Some(1e-4);
    let refused = run(&old, &fused(0.5), &strict, Limits::of_reading()).unwrap();
    assert!(matches!(refused, Outcome::Differs { .. }), "{refused:?}");
}
