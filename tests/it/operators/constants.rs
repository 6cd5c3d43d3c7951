//! Constants that a model computes itself have the values that ONNX Runtime, or ONNX's reference,
//! computes for them, in every type; or they are not taken as constant.
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use acb_fuse::facts::constants::Constants;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::TensorProto;
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use expect_test::expect_file;
use prost::Message;

/// Returns by how much floats may differ, relative to the largest of a tensor: the functions of
/// two implementations agree to a few last bits. In 16 bits, both round each node once.
fn allowed(float: Float) -> f64 {
    match float {
        Float::F16 | Float::Bf16 => 0.0,
        Float::F32 => 1e-6,
        Float::F64 => 1e-12,
    }
}

/// `constants.txt` lists in which types each operator counts as constant;
/// `UPDATE_EXPECT=1 cargo test` updates it.
#[test]
fn constants_are_computed_in_their_type() {
    let mut rows: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut failures = Vec::new();
    const TYPES: [&str; 13] = [
        "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
        "float16", "bfloat16", "float32", "float64",
    ];
    for kind in TYPES {
        let folder = Path::new("fixtures/constants").join(kind);
        let bytes = fs::read(folder.join("model.onnx")).unwrap();
        let outputs = fs::read(folder.join("outputs.pb")).unwrap();
        let model = Model::index(bytes.into(), Storage::default()).unwrap();
        let graphs = Graph::read_all(&model).unwrap();
        let constants = &Constants::find_all(&graphs, false).unwrap()[0];
        let mut left = &outputs[..];
        while !left.is_empty() {
            let expected = TensorProto::decode_length_delimited(&mut left).unwrap();
            let name = expected.name();
            let found = constants.tensor(graphs[0].find(name).unwrap()).unwrap();
            let Some(found) = found else {
                rows.entry(name.to_owned()).or_default();
                continue;
            };
            rows.entry(name.to_owned()).or_default().push(kind);
            match name.strip_prefix("undefined.") {
                Some(_) => failures.push(format!("{kind}: {name} is constant")),
                None => failures.extend(
                    difference(&expected, &found).map(|why| format!("{kind}: {name} {why}")),
                ),
            }
        }
    }
    let mut table = String::new();
    for (name, kinds) in rows {
        let kinds = if kinds.is_empty() { "-".to_owned() } else { kinds.join(" ") };
        writeln!(table, "{name}: {kinds}").unwrap();
    }
    let path = std::env::current_dir().unwrap().join("fixtures/constants.txt");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    expect_file![path].assert_eq(&table);
}

fn difference(expected: &TensorProto, found: &TensorProto) -> Option<String> {
    let header = |tensor: &TensorProto| (tensor.data_type(), tensor.dims.clone());
    if header(expected) != header(found) {
        return Some(format!("is {:?}, not {:?}", header(found), header(expected)));
    }
    let Some(float) = Float::from_onnx(expected.data_type()) else {
        let same = expected.raw_data() == found.raw_data();
        return (!same)
            .then(|| format!("is {:?}, not {:?}", found.raw_data(), expected.raw_data()));
    };
    let [a, b] = [expected, found].map(|t| tensor::floats(t, &Storage::default()).unwrap());
    let largest = a.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let far = |(a, b): (&f64, &f64)| (a - b).abs() > allowed(float) * largest;
    a.iter().zip(&b).any(far).then(|| format!("is {b}, not {a}"))
}
