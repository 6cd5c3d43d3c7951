//! What one node is written as, step by step.
//!
//! Knows nodes and their names; no operator but those that make numbers.

use crate::onnx::float::Float;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{AttributeProto, NodeProto, TensorProto};
use crate::onnx::tensor;
use crate::onnx::write;

/// Nodes that are appended one by one, each with a name of its own.
pub struct Steps {
    prefix: String,
    /// So far.
    pub nodes: Vec<NodeProto>,
}

impl Steps {
    /// None yet; what they make is called by this and a number.
    pub fn called(prefix: String) -> Self {
        Steps { prefix, nodes: Vec::new() }
    }

    fn name(&self) -> String {
        format!("{}.{}", self.prefix, self.nodes.len())
    }

    /// One node more; returns what it makes.
    pub fn push(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let name = self.name();
        self.nodes.push(write::node(op, "", inputs, &name, attributes));
        name
    }

    /// One without attributes.
    pub fn step(&mut self, op: &str, inputs: &[&str]) -> String {
        self.push(op, inputs, Vec::new())
    }

    /// In float64.
    pub fn wide(&mut self, input: &str) -> String {
        self.cast(input, DataType::Double)
    }

    /// As another type.
    pub fn cast(&mut self, input: &str, to: DataType) -> String {
        self.push("Cast", &[input], vec![write::int("to", i64::from(i32::from(to)))])
    }

    /// A list of integers.
    pub fn integers(&mut self, values: &[i64]) -> String {
        self.constant(tensor::from_integers(&self.name(), values))
    }

    /// An integer without axes.
    pub fn integer(&mut self, value: i64) -> String {
        self.constant(TensorProto { dims: vec![], ..tensor::from_integers("", &[value]) })
    }

    /// A number in float64, without axes.
    pub fn float(&mut self, value: f64) -> String {
        self.constant(tensor::from_floats("", &ndarray::arr0(value).into_dyn(), Float::F64))
    }

    fn constant(&mut self, value: TensorProto) -> String {
        self.push("Constant", &[], vec![write::tensor("value", value)])
    }
}
