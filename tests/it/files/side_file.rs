//! A new side file holds each byte that tensors refer to once, however many tensors do.

use std::fs;
use std::path::Path;

use acb_fuse::Options;
use acb_fuse::onnx::proto::tensor_proto::{DataLocation, DataType};
use acb_fuse::onnx::proto::{StringStringEntryProto, TensorProto};
use acb_fuse::onnx::storage::{Links, Storage};
use acb_fuse::onnx::tensor::inlined;
use prost::Message;

use crate::support::counts::decoded;
use crate::support::text;
use crate::support::tool::converted;

/// Location, offset and length, as a tensor gives them.
type Named = (&'static str, Option<&'static str>, Option<&'static str>);

/// The parts of `w.data`, of 200,000 bytes, that tensors refer to, and the size of the new side
/// file in bytes.
const NAMED: &[(&str, &[Named], usize)] = &[
    ("one", &[("w.data", Some("100"), Some("5000"))], 5000),
    ("the same", &[("w.data", Some("0"), Some("150000")); 4], 150_000),
    (
        "the same, in other words",
        &[
            ("w.data", None, None),
            ("./w.data", Some("0"), Some("200000")),
            ("w.data", Some("00"), None),
        ],
        200_000,
    ),
    // The second begins where the first ends, and is put at the next multiple of 64.
    (
        "side by side",
        &[("w.data", Some("0"), Some("1000")), ("w.data", Some("1000"), Some("1000"))],
        2024,
    ),
    // The old bytes 8 to 10,000, at the same distance from a multiple of 64.
    (
        "overlapping",
        &[
            ("w.data", Some("64"), Some("4000")),
            ("w.data", Some("8"), Some("4000")),
            ("./w.data", Some("4004"), Some("5996")),
            ("w.data", Some("128"), Some("4")),
        ],
        10_000,
    ),
    ("nothing", &[("w.data", Some("8"), Some("0")), ("w.data", Some("4"), Some("8"))], 8 + 4),
];

fn external(name: String, (location, offset, length): Named) -> TensorProto {
    let whole = 200_000 - offset.map_or(0, |offset| offset.parse().unwrap());
    let size = length.map_or(whole, |length| length.parse::<i64>().unwrap());
    let entries = [("location", Some(location)), ("offset", offset), ("length", length)];
    let entry = |(key, value): (&str, Option<&str>)| {
        let (key, value) = (Some(key.to_owned()), Some(value?.to_owned()));
        Some(StringStringEntryProto { key, value })
    };
    TensorProto {
        name: Some(name),
        dims: vec![size],
        data_type: Some(DataType::Uint8.into()),
        data_location: Some(DataLocation::External.into()),
        external_data: entries.into_iter().filter_map(entry).collect(),
        ..TensorProto::default()
    }
}

/// Returns the data of the tensors whose names begin with `kept`.
fn kept(path: &Path) -> Vec<Vec<u8>> {
    let storage = Storage::in_folder(path.parent().unwrap(), Links::Confined);
    let graph = decoded(path).graph.unwrap();
    let kept = graph.initializer.iter().filter(|tensor| tensor.name().starts_with("kept"));
    kept.map(|tensor| inlined(tensor, &storage).unwrap().raw_data().to_vec()).collect()
}

#[test]
fn what_many_tensors_name_is_written_once() {
    let weights: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
    for (case, named, size) in NAMED {
        let folder = tempfile::tempdir().unwrap();
        let [input, output] = ["in.onnx", "out.onnx"].map(|name| folder.path().join(name));
        let mut model = text::model(
            r#"<ir_version: 8, opset_import: ["" : 17]> net (float[1,4,5,5] x) => (float[1,4,5,5] y)
            <float[4,4,3,3] square, float[4,4,1,1] point>
            { a = Conv <pads = [1,1,1,1]> (x, square) b = Conv (x, point) y = Add (a, b) }"#,
        )
        .unwrap();
        let tensors = named.iter().enumerate();
        let tensors = tensors.map(|(at, named)| external(format!("kept{at}"), *named));
        model.graph.as_mut().unwrap().initializer.extend(tensors);
        fs::write(&input, model.encode_to_vec()).unwrap();
        fs::write(folder.path().join("w.data"), &weights).unwrap();
        let report = converted(&input, &output, &Options::default());
        assert_eq!(report.blocks.len(), 1, "{case}");
        assert_eq!(kept(&output), kept(&input), "{case}");
        let side_file = fs::read(folder.path().join("out.onnx.data")).unwrap();
        assert_eq!(side_file.len(), *size, "{case}");
    }
}
