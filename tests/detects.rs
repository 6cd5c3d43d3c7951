//! Verification fails when it must.
//!
//! A wrong fuser is simulated by fusing a *changed* model, or by changing what is
//! about to be written; the claim that verification is handed always comes from the
//! original.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::type_complexity)]

use std::fs;

use acb_fuse::claim::claim;
use acb_fuse::convert;
use acb_fuse::engine::{Array, InputShapes, Limits};
use acb_fuse::fuse::{Fused, fuse};
use acb_fuse::onnx::build;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::{ModelProto, NodeProto, TensorProto, type_proto};
use acb_fuse::onnx::splice;
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor::{self, Float};
use acb_fuse::plan::{Names, plan};
use acb_fuse::region::Readings;
use acb_fuse::region::constant::Constants;
use acb_fuse::region::read::Reader;
use acb_fuse::rewrite::{Changes, rewrite};
use acb_fuse::verify::block::{Unproved, check_rounding, prove};
use acb_fuse::verify::feed::Random;
use acb_fuse::verify::model::{Options, Outcome, run};
use prost::Message;

const BLOCKS: [&str; 6] = [
    "fixtures/blocks/k3/torchscript_kept.onnx",
    "fixtures/blocks/k5_p2/torchscript_kept.onnx",
    "fixtures/blocks/groups2/torchscript_kept.onnx",
    "fixtures/blocks/depthwise/torchscript_kept.onnx",
    "fixtures/blocks/dilation2/torchscript_kept.onnx",
    "fixtures/blocks/stride2_odd/torchscript_kept.onnx",
];

/// Their borders, sequences and means are part of what is proved.
const RELATIVES: [&str; 4] = [
    "fixtures/relatives/dbb/dynamo_kept_static.onnx",
    "fixtures/relatives/ecbsr/torchscript_folded_static.onnx",
    "fixtures/relatives/span/torchscript_folded_dynamic.onnx",
    "fixtures/relatives/unireplknet/dynamo_folded_static.onnx",
];

/// Runs `check` on the pipeline's state for one model.
fn with_model<T>(bytes: Vec<u8>, check: impl FnOnce(&Reader, &Readings) -> T) -> T {
    let model = Model::index(bytes.into(), Storage::default()).unwrap();
    let graphs = Graph::read_all(&model).unwrap();
    let constants = Constants::find_all(&graphs, false).unwrap();
    let shapes = InputShapes::new();
    let reader = Reader::new(&graphs[0], &constants[0], &shapes);
    let readings = Readings::of(&reader).unwrap();
    check(&reader, &readings)
}

fn fused(bytes: Vec<u8>) -> Fused {
    with_model(bytes, |reader, readings| {
        let plan = plan(reader, readings, &mut Names::of(reader.graph), &[]);
        fuse(reader, readings, &plan.blocks[0]).unwrap()
    })
}

/// What verification says of `fused` as a replacement of the block in `original`.
fn verdict(original: &str, fused: &Fused) -> Result<f64, Unproved> {
    with_model(fs::read(original).unwrap(), |reader, readings| {
        let plan = plan(reader, readings, &mut Names::of(reader.graph), &[]);
        let block = &plan.blocks[0];
        check_rounding(&fused.tensors, &fused.exact, block.float)?;
        let claim = claim(reader, readings, block, fused).unwrap();
        // Inference loads the whole model; nothing in a block of the paper depends on a size.
        assert!(!BLOCKS.contains(&original) || !reader.sizes.has_inferred(), "{original}");
        prove(&claim, Limits::of_reading())
    })
}

fn changed(original: &str, change: impl FnOnce(&mut ModelProto)) -> Fused {
    let mut model = ModelProto::decode(&fs::read(original).unwrap()[..]).unwrap();
    change(&mut model);
    fused(model.encode_to_vec())
}

fn nodes<'m>(model: &'m mut ModelProto, op: &str) -> Vec<&'m mut NodeProto> {
    let nodes = &mut model.graph.as_mut().unwrap().node;
    nodes.iter_mut().filter(|node| node.op_type() == op).collect()
}

fn attribute<'n>(
    node: &'n mut NodeProto,
    name: &str,
) -> &'n mut acb_fuse::onnx::proto::AttributeProto {
    node.attribute.iter_mut().find(|attribute| attribute.name() == name).unwrap()
}

fn initializer<'m>(model: &'m mut ModelProto, name: &str) -> &'m mut TensorProto {
    let graph = model.graph.as_mut().unwrap();
    // TorchScript merges equal initializers through Identity nodes.
    let source =
        graph.node.iter().find(|node| node.op_type() == "Identity" && node.output[0] == name);
    let name = source.map_or(name.to_owned(), |node| node.input[0].clone());
    graph.initializer.iter_mut().find(|tensor| tensor.name() == name).unwrap()
}

/// Scales the first number of a raw f32 tensor.
fn scale_first(tensor: &mut TensorProto, factor: f32) {
    let mut raw = tensor.raw_data.clone().unwrap().to_vec();
    let first = f32::from_le_bytes(raw[..4].try_into().unwrap()) * factor;
    raw[..4].copy_from_slice(&first.to_le_bytes());
    tensor.raw_data = Some(raw.into());
}

#[test]
fn the_right_rewrite_is_proved() {
    for original in BLOCKS.into_iter().chain(RELATIVES) {
        let fused = fused(fs::read(original).unwrap());
        assert!(verdict(original, &fused).unwrap() < 1e-13, "{original}");
    }
}

/// A mistake of the fuser, as the model it would have been right for.
type Mistake = (&'static str, fn(&mut ModelProto));

const MISTAKES: [Mistake; 7] = [
    ("ε dropped", |model| {
        nodes(model, "BatchNormalization").iter_mut().for_each(|norm| {
            attribute(norm, "epsilon").f = Some(0.0);
        });
    }),
    ("one ε dropped", |model| {
        attribute(nodes(model, "BatchNormalization")[2], "epsilon").f = Some(0.0);
    }),
    ("one β forgotten", |model| {
        let beta = nodes(model, "BatchNormalization")[1].input[2].clone();
        let tensor = initializer(model, &beta);
        tensor.raw_data = Some(vec![0; tensor.raw_data.as_ref().unwrap().len()].into());
    }),
    ("the arms' norms exchanged", |model| {
        let mut norms = nodes(model, "BatchNormalization");
        let (a, b) = (norms[1].input[1..].to_vec(), norms[2].input[1..].to_vec());
        norms[1].input.splice(1.., b);
        norms[2].input.splice(1.., a);
    }),
    ("an arm one position lower", |model| {
        let arm = nodes(model, "Conv").swap_remove(2);
        let step = attribute(arm, "dilations").ints[0];
        let pads = &mut attribute(arm, "pads").ints;
        (pads[0], pads[2]) = (pads[0] - step, pads[2] + step);
    }),
    ("one kernel weight by a millionth", |model| {
        let kernel = nodes(model, "Conv")[0].input[1].clone();
        scale_first(initializer(model, &kernel), 1.000_001);
    }),
    ("one variance by a millionth", |model| {
        let variance = nodes(model, "BatchNormalization")[0].input[4].clone();
        scale_first(initializer(model, &variance), 1.000_001);
    }),
];

#[test]
fn mistakes_of_the_fuser_are_caught() {
    for original in BLOCKS {
        for (name, mistake) in MISTAKES {
            let wrong = changed(original, mistake);
            let verdict = verdict(original, &wrong);
            assert!(
                matches!(verdict, Err(Unproved::Differs { .. })),
                "{original}: {name}: {verdict:?}"
            );
        }
    }
}

/// A change to the new nodes, or to the tensors that are about to be written.
type Tampering = (&'static str, fn(&mut Fused));

const TAMPERING: [Tampering; 7] = [
    ("a written weight by a millionth", |fused| scale_first(&mut fused.tensors[0], 1.000_001)),
    ("a written bias by a millionth", |fused| scale_first(&mut fused.tensors[1], 1.000_001)),
    ("kernel transposed", |fused| {
        let kernel = &mut fused.exact[0].1;
        let last = kernel.ndim() - 1;
        kernel.swap_axes(last, last - 1);
        *kernel = kernel.as_standard_layout().into_owned();
        let name = fused.exact[0].0.clone();
        fused.tensors[0] = acb_fuse::onnx::tensor::from_floats(
            &name,
            &fused.exact[0].1,
            acb_fuse::onnx::tensor::Float::F32,
        );
    }),
    ("pads shifted by one", |fused| {
        let pads = &mut attribute(&mut fused.nodes[0], "pads").ints;
        (pads[0], pads[2]) = (pads[0] - 1, pads[2] + 1);
    }),
    ("pads shifted by one along the other axis", |fused| {
        let pads = &mut attribute(&mut fused.nodes[0], "pads").ints;
        (pads[1], pads[3]) = (pads[1] + 1, pads[3] - 1);
    }),
    ("bias not read", |fused| {
        fused.nodes[0].input.pop();
    }),
    ("two weights exchanged before rounding", |fused| {
        let weights = fused.exact[0].1.as_slice_mut().unwrap();
        weights.swap(0, 1);
    }),
];

#[test]
fn changes_to_what_is_written_are_caught() {
    for original in BLOCKS.into_iter().chain(RELATIVES) {
        for (name, tamper) in TAMPERING {
            let mut wrong = fused(fs::read(original).unwrap());
            tamper(&mut wrong);
            assert!(verdict(original, &wrong).is_err(), "{original}: {name}");
        }
    }
}

/// The run of the whole model catches what no block's proof can see: wiring.
#[test]
fn wrong_wiring_is_caught_by_the_run() {
    let original = "fixtures/networks/resnet18/torchscript_kept_static.onnx";
    let options = Options { seed: 0, samples: 1, tolerance: None, shapes: InputShapes::new() };
    with_model(fs::read(original).unwrap(), |reader, readings| {
        let plan = plan(reader, readings, &mut Names::of(reader.graph), &[]);
        let fused: Vec<Fused> =
            plan.blocks.iter().map(|block| fuse(reader, readings, block).unwrap()).collect();
        let blocks: Vec<_> =
            plan.blocks.iter().map(|block| block.region.output).zip(&fused).collect();
        let changes = Changes { blocks, inferred: Vec::new() };
        let rewrite = rewrite(std::slice::from_ref(reader.graph), &[changes]).unwrap();
        let edits = rewrite.into_edits(vec![], vec![], |tensor| tensor);
        let mut right = Vec::new();
        splice::write(reader.graph.model.bytes(), &edits, &mut right).unwrap();
        let outcome = |bytes: &[u8]| {
            let new = Model::index(bytes.to_vec().into(), Storage::default()).unwrap();
            run(reader.graph.model, &new, &options, Limits::of_reading()).unwrap()
        };
        assert!(matches!(outcome(&right), Outcome::Agreed(_)));

        let mut wrong = ModelProto::decode(&right[..]).unwrap();
        // Two blocks of one shape read each other's weights.
        let graph = wrong.graph.as_mut().unwrap();
        let shape =
            |name: &str| graph.initializer.iter().find(|t| t.name() == name).unwrap().dims.clone();
        let convolutions: Vec<usize> =
            (0..graph.node.len()).filter(|&i| graph.node[i].op_type() == "Conv").collect();
        let (a, b) = (convolutions[1], convolutions[2]);
        assert_eq!(shape(&graph.node[a].input[1]), shape(&graph.node[b].input[1]));
        let (left, right) = (graph.node[a].input[1].clone(), graph.node[b].input[1].clone());
        graph.node[a].input[1] = right;
        graph.node[b].input[1] = left;
        let verdict = outcome(&wrong.encode_to_vec());
        assert!(matches!(verdict, Outcome::Differs { .. }), "{verdict:?}");

        // A residual that is forgotten.
        let mut wrong = ModelProto::decode(&wrong.encode_to_vec()[..]).unwrap();
        let mut adds = nodes(&mut wrong, "Add");
        let doubled = adds[0].input[0].clone();
        adds[0].input[1] = doubled;
        assert!(matches!(outcome(&wrong.encode_to_vec()), Outcome::Differs { .. }));
    });
}

/// The difference of two convolutions whose kernels are alike but for a ten-thousandth of
/// `difference`, so that rounding weighs ten thousand times as much as elsewhere.
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
        build::node("Conv", "", &["x", "first"], "a", vec![]),
        build::node("Conv", "", &["x", "second"], "b", vec![]),
        build::node("Sub", "", &["a", "b"], "y", vec![]),
    ];
    let mut model = build::model(17, vec![build::double_input("x", 4)], nodes, weights, &["y"]);
    let declared = model.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap();
    if let Some(type_proto::Value::TensorType(tensor)) = declared.value.as_mut() {
        tensor.elem_type = Some(Float::F32.to_onnx());
    }
    model.encode_to_vec()
}

/// What rounding makes of a model is no failure, and hides none.
#[test]
fn rounding_is_told_from_mistakes() {
    let shapes = InputShapes::from([("x".to_owned(), vec![1, 4, 9, 8])]);
    let options = Options { seed: 0, samples: 1, tolerance: None, shapes };
    let folder = tempfile::tempdir().unwrap();
    let fused = |weight: f64| {
        let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
        fs::write(&input, rounding_model(weight)).unwrap();
        let options = acb_fuse::Options { verify: false, ..acb_fuse::Options::default() };
        let place = acb_fuse::Place::File;
        convert(&place(input), Some(&place(output.clone())), &options).unwrap();
        Model::index(fs::read(output).unwrap().into(), Storage::default()).unwrap()
    };
    let old = Model::index(rounding_model(0.5).into(), Storage::default()).unwrap();
    let right = run(&old, &fused(0.5), &options, Limits::of_reading()).unwrap();
    assert!(matches!(right, Outcome::WithinRounding { .. }), "{right:?}");
    let wrong = run(&old, &fused(1.5), &options, Limits::of_reading()).unwrap();
    assert!(matches!(wrong, Outcome::Differs { .. }), "{wrong:?}");
    // Whoever names a tolerance means it.
    let strict = Options { tolerance: Some(1e-4), ..options };
    let refused = run(&old, &fused(0.5), &strict, Limits::of_reading()).unwrap();
    assert!(matches!(refused, Outcome::Differs { .. }), "{refused:?}");
}
