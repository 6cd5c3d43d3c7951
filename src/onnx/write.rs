//! New nodes and attributes, as the operator set has them, and small models to be run.
//!
//! How Slice, Pad and circular pads are written differs by operator set, and is decided here
//! only. Knows the format; neither what the nodes are for nor the names they get.

use crate::onnx::info::{self, AxisSize};
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use crate::onnx::tensor::from_integers;

/// Since this operator set, the bounds and axes of Slice are inputs; before, attributes.
const SLICE_READS_BOUNDS: i64 = 10;

/// Since this operator set, the pads of Pad are an input; before, an attribute.
const PAD_READS_PADS: i64 = 11;

/// The node without what is said of it, which no engine needs.
pub fn without_notes(node: &NodeProto) -> NodeProto {
    NodeProto { doc_string: None, metadata_props: Vec::new(), ..node.clone() }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind.into()), ..Default::default() }
}

/// An integer.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

/// A list of integers.
pub fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    AttributeProto { ints: values, ..attribute(name, AttributeType::Ints) }
}

/// A word.
pub fn string(name: &str, value: &'static str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().into()), ..attribute(name, AttributeType::String) }
}

/// A tensor.
pub fn tensor(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(Box::new(value)), ..attribute(name, AttributeType::Tensor) }
}

/// A node of the standard with one output, called `name`.
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

/// A product of two tensors, element by element.
pub fn product(a: &str, b: &str, output: &str) -> NodeProto {
    node("Mul", "", &[a, b], output, vec![])
}

/// The Transpose that makes of the output of a Transpose what that reads; `None` of other nodes.
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

/// The node as an `Identity` of its first input.
pub fn into_identity(mut node: NodeProto) -> NodeProto {
    node.input.truncate(1);
    NodeProto { op_type: Some("Identity".into()), attribute: Vec::new(), ..node }
}

/// The node as a `Cast` of its first input to an element type (`TensorProto.DataType`).
pub fn into_cast(mut node: NodeProto, to: i32) -> NodeProto {
    node.input.truncate(1);
    NodeProto { op_type: Some("Cast".into()), attribute: vec![int("to", to.into())], ..node }
}

/// A node that casts `from` to an element type (`TensorProto.DataType`).
pub fn cast(from: &str, to: &str, data_type: i32) -> NodeProto {
    into_cast(node("Identity", "", &[from], to, vec![]), data_type)
}

/// A node that makes `value`, called as that is.
pub fn constant(value: TensorProto) -> NodeProto {
    let name = value.name().to_owned();
    node("Constant", "", &[], &name, vec![tensor("value", value)])
}

/// One new node, and the lists of integers that it reads as tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenNode {
    /// The node, which has no name yet.
    pub node: NodeProto,
    /// In the order in which it reads them; their names begin with its output's.
    pub integers: Vec<TensorProto>,
}

impl WrittenNode {
    /// A node that reads its lists of integers from Constant nodes, behind these.
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

/// What Slice leaves of one axis: from `start` to before `end`, each counted from the axis'
/// end where it is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AxisSlice {
    /// Which axis.
    pub axis: i64,
    /// The first element that stays.
    pub start: i64,
    /// The first behind them; `i64::MAX` if all others stay.
    pub end: i64,
}

impl AxisSlice {
    /// Cuts off what `pads` have below zero, before and behind.
    pub fn cropping(axis: i64, (begin, end): (i64, i64)) -> Option<Self> {
        let start = begin.saturating_neg().max(0);
        let end = if end < 0 { end } else { i64::MAX };
        (start > 0 || end < 0).then_some(AxisSlice { axis, start, end })
    }
}

/// Slice of `input`.
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

/// Pad of `input` in this mode, by `pads` of all axes, all beginnings first, none below zero.
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

/// Something that Concat joins where an axis is padded circularly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircularPart {
    /// What is padded.
    Input,
    /// A Slice of what is padded, and what its name ends with.
    Slice(&'static str, AxisSlice),
}

/// A circular pad of one axis without a Pad: what [`concat`] joins, in this order. Empty if
/// nothing is added.
pub fn circular_parts(axis: i64, (begin, end): (i64, i64)) -> Vec<CircularPart> {
    let last = AxisSlice { axis, start: begin.saturating_neg(), end: i64::MAX };
    let first = AxisSlice { axis, start: 0, end };
    let last = (begin > 0).then_some(CircularPart::Slice("last", last));
    let first = (end > 0).then_some(CircularPart::Slice("first", first));
    let is_padded = last.is_some() || first.is_some();
    let input = is_padded.then_some(CircularPart::Input);
    [last, input, first].into_iter().flatten().collect()
}

/// Concat of `inputs` along `axis`.
pub fn concat(inputs: &[&str], output: &str, axis: i64) -> NodeProto {
    node("Concat", "", inputs, output, vec![int("axis", axis)])
}

/// A model of these nodes that computes `outputs`.
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

/// An input of float64, with so many axes.
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
