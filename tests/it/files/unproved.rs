//! A block that cannot be proved is left alone, and what stands inside of it is planned anew.
use std::fs;

use acb_fuse::Options;
use prost::Message;

use crate::support::text;
use crate::support::tool::converts;

/// Blocks right from row 5001 on: proofs take no tensors of so many rows. Without the crop, there is a
/// block before it, and one behind.
const FAR: &str = r#"
<ir_version: 8, opset_import: ["" : 13]>
far (float[1,4,L] x) => (float[1,4,M] y)
<float[4,4,3] k, float[4,4,1] l, float[4] s, float[4] t, float[4] m, float[4] v = {0.5, 1, 2, 1.5},
 int64[1] from = {5000}, int64[1] to = {9223372036854775807}, int64[1] axes = {2}>
{
    a = Conv (x, k)
    b = BatchNormalization (a, s, t, m, v)
    c = Slice (b, from, to, axes)
    d = Conv (c, l)
    y = BatchNormalization (d, s, t, m, v)
}
"#;

#[test]
fn what_is_not_proved_is_planned_anew() {
    let folder = tempfile::tempdir().unwrap();
    let [model, new, again] =
        ["model.onnx", "new.onnx", "again.onnx"].map(|file| folder.path().join(file));
    fs::write(&model, text::model(FAR).unwrap().encode_to_vec()).unwrap();
    let report = converts(&model, &new, &Options::default()).unwrap();
    let proved = |block: &acb_fuse::report::BlockReport| block.proof.is_some();
    assert_eq!(report.blocks.len(), 2, "{report}");
    assert!(report.blocks.iter().all(proved), "{report}");
    let found = converts(&new, &again, &Options::default()).unwrap();
    assert!(found.blocks.is_empty(), "{found}");
    assert_eq!(fs::read(&new).unwrap(), fs::read(&again).unwrap());
}
