//! New nodes and attributes, and small models to be run.

use crate::onnx::info::{self, AxisSize};
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};

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
    AttributeProto { t: Some(value), ..attribute(name, AttributeType::Tensor) }
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

/// Pad has had the mode `wrap` since this operator set.
pub const WRAP_SINCE: i64 = 19;
