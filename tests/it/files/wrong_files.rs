//! Models of which a wrong file was written once, or which are of that kind: the new file must
//! compute what ONNX Runtime computes of the original, verified or not; and a look, a check and
//! a conversion must decide alike.
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use acb_fuse::Options;
use acb_fuse::onnx::proto::tensor_proto::DataType;
use acb_fuse::onnx::proto::tensor_shape_proto::dimension;
use acb_fuse::onnx::proto::{ValueInfoProto, type_proto};
use acb_fuse::report::Report;
use acb_fuse::verify::compare::relative_error;

use crate::support::counts::{decoded, output_type};
use crate::support::engine::run;
use crate::support::fixtures::data;
use crate::support::tool::{converted, fused, looked, options, tool};

/// The case, the number of blocks that are fused, and what is said of what is left alone.
const CASES: &[(&str, usize, &str)] = &[
    ("batch_of_none", 1, ""),
    (
        "border_of_one_batch",
        0,
        "the batch of `t`, whose border is filled for 1 only, is not known; the file leaves it \
         open\nfixed sizes may help: a shape for the input `x`, such as 1,3,6,6",
    ),
    (
        "constant_below_zero_in_uint16",
        0,
        "`k` is computed from constants by Sub, which is not evaluated",
    ),
    ("constant_cut_to_int8", 1, ""),
    (
        "constant_float_beyond_int32",
        0,
        "`k` is computed from constants by Cast, which is not evaluated",
    ),
    (
        "constant_mean_of_integers",
        0,
        "`k` is computed from constants by ReduceMean, which is not evaluated",
    ),
    (
        "constant_rounds_in_float16",
        0,
        "`k` is computed from constants by Cast, which is not evaluated",
    ),
    ("constant_wraps_in_int8", 1, ""),
    (
        "constant_wraps_in_uint8",
        0,
        "`k` is computed from constants by Cast, which is not evaluated",
    ),
    ("crop_beside_a_slice_of_opset_10", 1, ""),
    (
        "crop_wider_than_known_tensor",
        1,
        "it could be merged only where axis 2 of `x` has at least 3 elements",
    ),
    (
        "crop_wider_than_tensor",
        1,
        "it could be merged only where axis 2 of `x` has at least 3 elements",
    ),
    (
        "filter_underflows_in_float16",
        0,
        "the fused weights of channel 2 would lose their precision: the largest is below the \
         smallest normal number of float16",
    ),
    ("kernel_of_other_type", 2, "its inputs have different types"),
    ("map_that_is_empty", 1, "it could be merged only where `t4` is not empty"),
    ("norm_of_a_sum_of_ranks", 0, ""),
    ("scale_of_a_sum_of_ranks", 0, ""),
    ("shift_of_a_sum_of_ranks", 1, ""),
    ("shift_of_other_type", 0, "its inputs have different types"),
    ("slice_of_opset_10", 3, "it could be merged only where axis 2 of `x` has at least 3 elements"),
    ("statistics_of_other_type", 0, "its inputs have different types"),
    ("sum_overflows_in_float16", 0, "a fused weight would not be finite in float16"),
    ("switched_off_channel_in_float16", 1, ""),
    ("weight_overflows_in_float16", 0, "a fused weight would not be finite in float16"),
    (
        "weight_underflows_in_float16",
        0,
        "the fused weights of channel 0 would lose their precision",
    ),
    (
        "weights_underflow_in_float32",
        0,
        "the fused weights of channel 0 would lose their precision",
    ),
];

fn reasons(report: &Report) -> BTreeSet<String> {
    report.near_misses.iter().map(|miss| format!("{}: {}", miss.node, miss.reason)).collect()
}

/// Returns the error that is allowed: numbers that are rounded once differ by the last bits of a
/// sum of some dozens.
fn allowed(model: &Path) -> f64 {
    match DataType::try_from(output_type(model)) {
        Ok(DataType::Float16) => 2e-3,
        _ => 1e-5,
    }
}

#[test]
fn the_new_file_computes_what_the_old_one_did() {
    let mut compared = 0;
    for &(case, blocks, said) in CASES {
        let model = Path::new("fixtures/wrong_files").join(case).join("model.onnx");
        let look = looked(&model, &Options::default());
        assert_eq!(look.blocks.len(), blocks, "{case}: {look}");
        assert!(look.to_string().contains(said), "{case}: {look}");
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.onnx");
        for verify in [true, false] {
            let options = options(|options| options.verify = verify);
            let report = converted(&model, &output, &options);
            assert_eq!(report.blocks.len(), blocks, "{case}: {report}");
            assert_eq!(reasons(&report), reasons(&look), "{case}");
            let is_same = fs::read(&model).unwrap() == fs::read(&output).unwrap();
            assert_eq!(is_same, blocks == 0, "{case}");
            for set in [model.clone(), model.with_file_name("second").join("model.onnx")] {
                let (inputs, expected) = (data(&set, "input"), data(&set, "output"));
                // An unchanged file is compared already, and tract does not know all of them.
                if blocks == 0 || inputs.is_empty() {
                    continue;
                }
                let found = run(&output, folder.path(), &inputs)
                    .unwrap_or_else(|error| panic!("{case}: {error}"));
                for (expected, found) in expected.iter().zip(&found) {
                    let error = relative_error(expected, found);
                    assert!(error <= allowed(&model), "{case}: {error:e}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 22);
}

#[test]
fn a_look_a_check_and_a_conversion_end_alike() {
    for &(case, blocks, _) in CASES {
        let model = Path::new("fixtures/wrong_files").join(case).join("model.onnx");
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.onnx");
        let (model, output) = (model.to_str().unwrap(), output.to_str().unwrap());
        let code = |arguments: &[&str]| tool().args(arguments).output().unwrap().status.code();
        let fusable = if blocks == 0 { 0 } else { 5 };
        for (arguments, expected) in [
            (&[model][..], 0),
            (&[model, "--check"], fusable),
            (&[model, output], 0),
            // In a converted file, nothing is left to fuse.
            (&[output, "--check"], 0),
            (&[model, output, "--no-verify"], 0),
        ] {
            assert_eq!(code(arguments), Some(expected), "{case}: {arguments:?}");
        }
    }
}

/// The sizes of a Slice that is new in operator set 10 are declared, the open ones under names of
/// their own: ONNX's inference would give it the names of the sliced tensor's sizes, and ONNX
/// Runtime puts tensors of "equal" size into one place.
#[test]
fn new_slices_of_opset_10_have_sizes_of_their_own() {
    {
        let case = "crop_beside_a_slice_of_opset_10";
        let model = Path::new("fixtures/wrong_files").join(case).join("model.onnx");
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.onnx");
        fused(&model, &output);
        let (old, new) = (decoded(&model).graph.unwrap(), decoded(&output).graph.unwrap());
        let slices = new.node.iter().filter(|node| node.op_type() == "Slice");
        let slices = slices.map(|node| &node.output[0]);
        let is_new = |name: &&String| old.node.iter().all(|node| node.output[0] != **name);
        let new_slices: Vec<&String> = slices.filter(is_new).collect();
        assert!(!new_slices.is_empty(), "{case}");
        let names_in = |info: &ValueInfoProto| -> Vec<String> {
            let declared = info.r#type.as_ref().and_then(|declared| declared.value.as_ref());
            let Some(type_proto::Value::TensorType(tensor)) = declared else { panic!("{case}") };
            let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
            let named = dims.filter_map(|dim| match &dim.value {
                Some(dimension::Value::DimParam(name)) => Some(name.clone()),
                _ => None,
            });
            named.collect()
        };
        let mut taken: Vec<String> = old.input.iter().flat_map(names_in).collect();
        for slice in new_slices {
            let info = new.value_info.iter().find(|info| info.name() == slice);
            let own = names_in(info.unwrap_or_else(|| panic!("{case}: {slice} is not described")));
            assert!(!own.is_empty(), "{case}: {slice}");
            assert!(own.iter().all(|name| !taken.contains(name)), "{case}: {own:?}");
            taken.extend(own);
        }
    }
}
