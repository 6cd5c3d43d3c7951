//! New nodes and attributes, as each operator set defines them, and small models to run.
//!
//! How Slice, Pad and circular pads are written depends on the operator set, and is decided
//! here only. Knows the format; neither the purpose of the nodes nor their names.

use crate::onnx::info::{self, AxisSize};
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use crate::onnx::tensor::from_integers;

/// The first operator set in which the bounds and axes of Slice are inputs, not attributes.
const SLICE_READS_BOUNDS: i64 = 10;

/// The first operator set in which the pads of Pad are an input, not an attribute.
const PAD_READS_PADS: i64 = 11;

/// Returns the node without documentation and metadata, which no engine needs.
pub fn without_notes(node: &NodeProto) -> NodeProto {
    NodeProto { doc_string: None, metadata_props: Vec::new(), ..node.clone() }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind.into()), ..Default::default() }
}

/// Returns an integer attribute.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

/// Returns an attribute that is a list of integers.
pub fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    AttributeProto { ints: values, ..attribute(name, AttributeType::Ints) }
}

/// Returns a string attribute.
pub fn string(name: &str, value: &'static str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().into()), ..attribute(name, AttributeType::String) }
}

/// Returns a tensor attribute.
pub fn tensor(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(Box::new(value)), ..attribute(name, AttributeType::Tensor) }
}

/// Returns a node called `name` of a standard operator with one output.
pub fn node(
    op: &str,
    name: &str,
    inputs: &[&str],
    output: &str,
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        name: Some(name.into()),
        input: inputs.iter().map(|&input| input.into()).collect(),
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    }
}

/// Returns a Mul: the elementwise product of two tensors.
pub fn product(a: &str, b: &str, output: &str) -> NodeProto {
    node("Mul", "", &[a, b], output, vec![])
}

/// Returns the Transpose that reads the output of the Transpose `node` and restores its input;
/// `None` if `node` is not a Transpose with a `perm`.
pub fn turned_back(node: &NodeProto) -> Option<NodeProto> {
    let ([read], [made]) = (node.input.as_slice(), node.output.as_slice()) else { return None };
    let perm = node.attribute.iter().find(|attribute| attribute.name() == "perm")?;
    let place = |axis: i64| perm.ints.iter().position(|&from| from == axis);
    let back = (0..perm.ints.len()).map(|axis| Some(place(axis as i64)? as i64));
    let back = back.collect::<Option<Vec<i64>>>()?;
    let is_transpose = node.op_type() == "Transpose" && node.domain().is_empty();
    let name = node.name();
    is_transpose.then(|| self::node("Transpose", name, &[made], read, vec![ints("perm", back)]))
}

/// Turns a node into an `Identity` of its first input.
pub fn into_identity(mut node: NodeProto) -> NodeProto {
    node.input.truncate(1);
    NodeProto { op_type: Some("Identity".into()), attribute: Vec::new(), ..node }
}

/// Turns a node into a `Cast` of its first input to an element type (`TensorProto.DataType`).
pub fn into_cast(mut node: NodeProto, to: i32) -> NodeProto {
    node.input.truncate(1);
    NodeProto { op_type: Some("Cast".into()), attribute: vec![int("to", to.into())], ..node }
}

/// Returns a node that casts `from` to an element type (`TensorProto.DataType`).
pub fn cast(from: &str, to: &str, data_type: i32) -> NodeProto {
    into_cast(node("Identity", "", &[from], to, vec![]), data_type)
}

/// Returns a Constant whose output has the name of `value`.
pub fn constant(value: TensorProto) -> NodeProto {
    let name = value.name().to_owned();
    node("Constant", "", &[], &name, vec![tensor("value", value)])
}

/// A new node, and the lists of integers that it reads as tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenNode {
    /// The node, still without a name.
    pub node: NodeProto,
    /// The tensors, in the order in which it reads them; their names begin with that of its output.
    pub integers: Vec<TensorProto>,
}

impl WrittenNode {
    /// Returns Constant nodes for its lists of integers, followed by the node.
    pub fn with_constants(self) -> impl Iterator<Item = NodeProto> {
        self.integers.into_iter().map(constant).chain([self.node])
    }

    fn read(&mut self, list: &str, values: &[i64]) {
        let name = format!("{}.{list}", self.node.output.first().map_or("", String::as_str));
        self.integers.push(from_integers(&name, values));
        self.node.input.push(name);
    }
}

impl From<NodeProto> for WrittenNode {
    fn from(node: NodeProto) -> Self {
        WrittenNode { node, integers: Vec::new() }
    }
}

/// The part of one axis that a Slice keeps: from `start` to before `end`, where negative
/// numbers count from the end of the axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AxisSlice {
    /// The axis.
    pub axis: i64,
    /// The first element that is kept.
    pub start: i64,
    /// The first element behind those that are kept; `i64::MAX` if all that follow are kept.
    pub end: i64,
}

impl AxisSlice {
    /// Returns the slice that crops an axis by those of its pads `(begin, end)` that are
    /// negative; `None` if neither is.
    pub fn cropping(axis: i64, (begin, end): (i64, i64)) -> Option<Self> {
        let start = begin.saturating_neg().max(0);
        let end = if end < 0 { end } else { i64::MAX };
        (start > 0 || end < 0).then_some(AxisSlice { axis, start, end })
    }
}

/// Returns a Slice of `input` by `cuts`.
pub fn slice(opset: i64, input: &str, output: &str, cuts: &[AxisSlice]) -> WrittenNode {
    let list = |value: fn(&AxisSlice) -> i64| -> Vec<i64> { cuts.iter().map(value).collect() };
    let lists = [
        ("starts", list(|cut| cut.start)),
        ("ends", list(|cut| cut.end)),
        ("axes", list(|cut| cut.axis)),
    ];
    let mut slice = WrittenNode::from(node("Slice", "", &[input], output, Vec::new()));
    for (list, values) in lists {
        if opset < SLICE_READS_BOUNDS {
            slice.node.attribute.push(ints(list, values));
        } else {
            slice.read(list, &values);
        }
    }
    slice
}

/// Returns a Pad of `input` in this mode. `pads` has those of all axes, all beginnings first,
/// none negative.
pub fn pad(
    opset: i64,
    mode: &'static str,
    input: &str,
    output: &str,
    pads: Vec<i64>,
) -> WrittenNode {
    let mode = string("mode", mode);
    let mut pad = WrittenNode::from(node("Pad", "", &[input], output, vec![mode]));
    if opset < PAD_READS_PADS {
        pad.node.attribute.push(ints("pads", pads));
    } else {
        pad.read("pads", &pads);
    }
    pad
}

/// One of the tensors that Concat joins to pad an axis circularly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircularPart {
    /// The padded tensor itself.
    Input,
    /// A Slice of it, with the suffix of its name.
    Slice(&'static str, AxisSlice),
}

/// Returns the parts of a circular pad of one axis by `(begin, end)`, without a Pad: [`concat`]
/// joins them in this order. Empty if nothing is added.
pub fn circular_parts(axis: i64, (begin, end): (i64, i64)) -> Vec<CircularPart> {
    let last = AxisSlice { axis, start: begin.saturating_neg(), end: i64::MAX };
    let first = AxisSlice { axis, start: 0, end };
    let last = (begin > 0).then_some(CircularPart::Slice("last", last));
    let first = (end > 0).then_some(CircularPart::Slice("first", first));
    let is_padded = last.is_some() || first.is_some();
    let input = is_padded.then_some(CircularPart::Input);
    [last, input, first].into_iter().flatten().collect()
}

/// Returns a Concat of `inputs` along `axis`.
pub fn concat(inputs: &[&str], output: &str, axis: i64) -> NodeProto {
    node("Concat", "", inputs, output, vec![int("axis", axis)])
}

/// Returns a model of these nodes that computes `outputs`.
pub fn model(
    opset: i64,
    input: Vec<ValueInfoProto>,
    node: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
    outputs: &[&str],
) -> ModelProto {
    let opset = OperatorSetIdProto { version: Some(opset), ..OperatorSetIdProto::default() };
    let output = outputs.iter().map(|&name| info::untyped(name)).collect();
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset],
        graph: Some(GraphProto { node, initializer, input, output, ..GraphProto::default() }),
        ..ModelProto::default()
    }
}

/// Returns a float64 input of rank `rank`, with all sizes open.
pub fn double_input(name: &str, rank: usize) -> ValueInfoProto {
    info::info(name, DataType::Double.into(), vec![AxisSize::Open; rank])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_attributes_then_inputs() {
        let cut = AxisSlice { axis: 2, start: 1, end: i64::MAX };
        for (opset, slice_reads, pad_reads) in [(9, 1, 1), (10, 4, 1), (11, 4, 2), (19, 4, 2)] {
            let slice = slice(opset, "x", "y", &[cut]);
            let pad = pad(opset, "edge", "x", "y", vec![0, 0, 1, 0, 0, 1]);
            for (written, reads) in [(&slice, slice_reads), (&pad, pad_reads)] {
                assert_eq!(written.node.input.len(), reads, "operator set {opset}");
                let names = written.integers.iter().map(TensorProto::name);
                assert!(names.eq(written.node.input.iter().skip(1)), "operator set {opset}");
            }
        }
    }

    #[test]
    fn circular_pads_join_what_they_need() {
        use CircularPart::{Input, Slice};
        let last = Slice("last", AxisSlice { axis: 3, start: -2, end: i64::MAX });
        let first = Slice("first", AxisSlice { axis: 3, start: 0, end: 1 });
        for (pads, expected) in [
            ((2, 1), &[last, Input, first][..]),
            ((2, 0), &[last, Input]),
            ((-1, 1), &[Input, first]),
            ((0, -1), &[]),
        ] {
            assert_eq!(circular_parts(3, pads), expected, "{pads:?}");
        }
    }
}
