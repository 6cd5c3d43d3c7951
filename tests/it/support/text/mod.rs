//! Models in ONNX's own textual syntax (`onnx.parser`), with one extension: a weight that is
//! declared without values has values that follow from its name.
//!
//! A name in the angle brackets behind a graph's signature that no node makes is a weight:
//!
//! ```text
//! <ir_version: 10, opset_import: ["" : 20]>
//! block (float[1,4,6,7] x) => (float[1,6,6,7] y)
//! <float[6,4,3,3] square, float[6] bias = {1, 2, 3, 4, 5, 6}>
//! { y = Conv <pads = [1,1,1,1]> (x, square, bias) }
//! ```
//!
//! A weight that is an input too is an input with a default. A tensor in an attribute may have a
//! name in the place of its values: `Constant <value = float[6,4,3,3] square> ()`.

mod literals;
mod parser;
mod scanner;
pub mod weights;

use acb_fuse::onnx::proto::ModelProto;

/// Returns the model of `text`, or what is wrong with it, and in which line.
pub fn model(text: &str) -> Result<ModelProto, String> {
    let mut scanner = scanner::Scanner::new(text);
    parser::model(&mut scanner).map_err(|what| format!("line {}: {what}", scanner.line()))
}

#[cfg(test)]
mod tests {
    use acb_fuse::onnx::proto::NodeProto;
    use acb_fuse::onnx::storage::Storage;
    use acb_fuse::onnx::tensor;

    use super::*;

    const TEXT: &str = r#"
        # What stands behind a hash is a remark.
        <ir_version: 8, producer_name: "me", opset_import: ["" : 17, "local" : 1]>
        block (float[N,4,?] x, int64[2] sizes = {3, -4}) => (float[] y)
        <float[2,2] kernel, float16[2] var, double s = {0.5}, float[1,2] known>
        {
            [label] known, = Conv <pads = [1, -1], auto_pad = "VALID", none : ints = []> (x, kernel, )
            "a/b" = my.domain.Op (known) <f = -1.5e1, t = bool[2] {1, 0}, names = ["p", "q"]>
            y = If (s) <then_branch = one () => (float z) { z = Relu ("a/b") }>
        }
        <domain: "local", opset_import: ["" : 17]>
        twice <slope, alpha: float = 2.0> (i) => (o) { o = Elu <alpha: float = @slope> (i) }"#;

    #[test]
    fn every_part_of_the_syntax_is_read() {
        let model = model(TEXT).unwrap();
        assert_eq!((model.ir_version(), model.producer_name()), (8, "me"));
        let imports = model.opset_import.iter().map(|set| (set.domain(), set.version()));
        assert_eq!(imports.collect::<Vec<_>>(), [("", 17), ("local", 1)]);
        let graph = model.graph.unwrap();
        let names = |found: &[acb_fuse::onnx::proto::ValueInfoProto]| {
            found.iter().map(|info| info.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&graph.input), ["x", "sizes"]);
        assert_eq!(names(&graph.value_info), ["known"]);
        let stored: Vec<_> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
        assert_eq!(stored, ["sizes", "kernel", "var", "s"]);
        let integers = tensor::integers(&graph.initializer[0], &Storage::default()).unwrap();
        assert_eq!(integers, [3, -4]);
        let variances = tensor::floats(&graph.initializer[2], &Storage::default()).unwrap();
        assert!(variances.iter().all(|&variance| variance > 0.0));
        let [conv, op, choice]: [NodeProto; 3] = graph.node.try_into().unwrap();
        assert_eq!(
            (conv.name(), &conv.output[..], &conv.input[..]),
            (
                "label",
                &["known".to_owned(), String::new()][..],
                &["x".to_owned(), "kernel".to_owned(), String::new()][..]
            )
        );
        assert_eq!(
            (conv.attribute[0].ints.as_slice(), conv.attribute[1].s()),
            (&[1, -1][..], &b"VALID"[..])
        );
        assert_eq!((op.domain(), op.op_type(), op.attribute[0].f()), ("my.domain", "Op", -15.0));
        assert_eq!(choice.attribute[0].g.as_ref().unwrap().node[0].input, ["a/b"]);
        let function = &model.functions[0];
        assert_eq!(
            (&function.attribute[..], function.attribute_proto[0].f()),
            (&["slope".to_owned()][..], 2.0)
        );
        assert_eq!(function.node[0].attribute[0].ref_attr_name(), "slope");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, said) in [
            ("<ir_version: 8>\nblock (float x", "line 2: "),
            ("<ir_version: 8, colour: 3>\nb () => () {}", "line 1: a model has no `colour`"),
            ("b () => () {\ny = Relu (x)\n} rest", "line 3: "),
            ("b () => () { y = Op <a = float[3] {1, 2}> () }", "line 1: 2 values for 3 elements"),
        ] {
            let found = model(text).unwrap_err();
            assert!(found.starts_with(said), "{text}: {found}");
        }
    }
}
