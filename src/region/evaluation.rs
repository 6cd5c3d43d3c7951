//! placeholder
use crate::onnx::graph::Node;
use crate::onnx::proto::TensorProto;
pub(super) fn is_sound(_node: &Node, _operands: &[TensorProto], _wanted: i32) -> bool { true }
pub(super) fn is_defined(_node: &Node, _operands: &[TensorProto], _value: &TensorProto) -> bool { true }
