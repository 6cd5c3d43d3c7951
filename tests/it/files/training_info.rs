//! Models with training information, whose graphs refer to tensors of the model by name.

use std::fs;

use acb_fuse::onnx::proto::tensor_proto::DataLocation;
use acb_fuse::onnx::proto::{GraphProto, StringStringEntryProto, TensorProto, TrainingInfoProto};
use acb_fuse::onnx::write;
use acb_fuse::{Equalize, TrainingMode};
use prost::Message;

use crate::support::text;
use crate::support::tool::{converted, options};

/// A block, a norm in training mode, and channels that may be scaled.
const MODEL: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
    net (float[1,4,5,5] x) => (float[1,4,5,5] y)
    <float[4,4,3,3] square, float[4,4,1,1] point, float[4] gamma, float[4] beta, float[4] mean,
     float[4] var = {1, 2, 3, 4}, float[4,4,1,1] last>
    { a = Conv <pads = [1,1,1,1]> (x, square) b = Conv (x, point) c = Add (a, b) d = Relu (c)
      n, m, v = BatchNormalization <training_mode = 1> (d, gamma, beta, mean, var)
      r = Relu (n) y = Conv (r, last) }"#;

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) }
}

/// Returns training information that reads a tensor made inside a block and sets one of its
/// weights; a weight of its own lies in `state.data`.
fn trained() -> TrainingInfoProto {
    let state = TensorProto {
        name: Some("state".to_owned()),
        dims: vec![4],
        data_type: Some(1),
        data_location: Some(DataLocation::External.into()),
        external_data: vec![entry("location", "state.data")],
        ..TensorProto::default()
    };
    let algorithm = GraphProto {
        node: vec![write::node("Identity", "", &["a"], "seen", vec![])],
        initializer: vec![state],
        ..GraphProto::default()
    };
    TrainingInfoProto {
        algorithm: Some(algorithm),
        update_binding: vec![entry("square", "seen")],
        ..TrainingInfoProto::default()
    }
}

/// A model with no training information, or an empty one, is folded; another one is written as
/// it is, with all its side files.
#[test]
fn what_is_known_by_name_to_what_trains_it_stays() {
    let reason = "the model has training information (`training_info`), which names weights and \
                  tensors that would change";
    for (case, training, stays) in [
        ("none", vec![], false),
        ("an empty one", vec![TrainingInfoProto::default()], false),
        ("one that names tensors", vec![trained()], true),
    ] {
        let [from, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [input, output] = [&from, &to].map(|folder| folder.path().join("model.onnx"));
        let mut model = text::model(MODEL).unwrap();
        model.training_info = training;
        fs::write(&input, model.encode_to_vec()).unwrap();
        fs::write(from.path().join("state.data"), [0; 16]).unwrap();
        let options = options(|options| {
            options.equalize = Some(Equalize::Best);
            options.training_mode = TrainingMode::Convert;
        });
        let report = converted(&input, &output, &options);
        let is_same = fs::read(&input).unwrap() == fs::read(&output).unwrap();
        assert_eq!((report.blocks.is_empty(), is_same), (stays, stays), "{case}");
        assert_eq!(to.path().join("state.data").exists(), stays, "{case}");
        let told = report.near_misses.iter().filter(|miss| miss.reason == reason).count();
        // The block before the norm, and the norm itself.
        assert_eq!(told > 1, stays, "{case}: {:?}", report.near_misses);
        let equalization = report.equalization.unwrap().reason;
        assert_eq!(equalization.as_deref() == Some(reason), stays, "{case}");
    }
}
