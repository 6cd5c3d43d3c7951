//! Builds the nodes that a single node is rewritten as, step by step.
//!
//! Knows nodes and their names; knows no operators but those that make numbers.

use crate::onnx::float::Float;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{AttributeProto, NodeProto, TensorProto};
use crate::onnx::tensor;
use crate::onnx::write;

/// A list of nodes to which nodes are appended one by one, each with a name of its own.
pub struct Steps {
    prefix: String,
    /// The nodes so far.
    pub nodes: Vec<NodeProto>,
}

impl Steps {
    /// Returns an empty list whose nodes will name their outputs by `prefix` and a number.
    pub fn called(prefix: String) -> Self {
        Steps { prefix, nodes: Vec::new() }
    }

    fn name(&self) -> String {
        format!("{}.{}", self.prefix, self.nodes.len())
    }

    /// Appends one node; returns the name of its output.
    pub fn push(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let name = self.name();
        self.nodes.push(write::node(op, "", inputs, &name, attributes));
        name
    }

    /// Appends a node without attributes.
    pub fn step(&mut self, op: &str, inputs: &[&str]) -> String {
        self.push(op, inputs, Vec::new())
    }

    /// Appends a cast to float64.
    pub fn wide(&mut self, input: &str) -> String {
        self.cast(input, DataType::Double)
    }

    /// Appends a cast to another type.
    pub fn cast(&mut self, input: &str, to: DataType) -> String {
        self.push("Cast", &[input], vec![write::int("to", i64::from(i32::from(to)))])
    }

    /// Appends a constant list of integers.
    pub fn integers(&mut self, values: &[i64]) -> String {
        self.constant(tensor::from_integers(&self.name(), values))
    }

    /// Appends a constant integer of rank 0.
    pub fn integer(&mut self, value: i64) -> String {
        self.constant(TensorProto { dims: vec![], ..tensor::from_integers("", &[value]) })
    }

    /// Appends a constant float64 number of rank 0.
    pub fn float(&mut self, value: f64) -> String {
        self.constant(tensor::from_floats("", &ndarray::arr0(value).into_dyn(), Float::F64))
    }

    fn constant(&mut self, value: TensorProto) -> String {
        self.push("Constant", &[], vec![write::tensor("value", value)])
    }
}
