//! The nodes of the file as a proof runs them: in float64, in their form at inference where they
//! are converted, and with constants in the place of nodes that measure other tensors.
//!
//! Knows nodes of the file; knows neither new nodes nor what is claimed of them.

use ndarray::ArrayD;

use crate::engine::{Constant, dialect};
use crate::facts::roles;
use crate::facts::shape_rules::{self, Dims, Operands};
use crate::onnx::float::Float;
use crate::onnx::ids::NodeId;
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::tensor;
use crate::onnx::write;
use crate::verify::claim::{Side, Unproved};
use crate::verify::cone::Cone;
use crate::verify::original::Original;

impl Original<'_, '_, '_> {
    /// Returns node `id` as the proof runs it: in float64, and in its form at inference if it is
    /// converted.
    ///
    /// # Errors
    /// Returns an error if the node rounds to another type, or computes in training mode.
    pub fn node(&self, id: NodeId) -> Result<NodeProto, Unproved> {
        let node = self.graph.node(id);
        let form = self.converted.get(&id);
        let proto = write::without_notes(form.unwrap_or(&node.proto));
        if roles::casts(node) {
            return self.cast(node, proto);
        }
        if roles::fills(node) {
            return self.filling(proto);
        }
        let integers = |name: &str| self.constants.integers(self.graph.find(name)?).ok()?;
        let evaluated = dialect::at_inference(proto, self.graph.model.opset, &integers);
        evaluated.ok_or_else(|| Unproved::Trains(node.label().to_owned()))
    }

    /// Converts a node that fills a tensor with a float, zero by default, so that it does so in
    /// float64.
    fn filling(&self, mut proto: NodeProto) -> Result<NodeProto, Unproved> {
        let at = proto.attribute.iter().position(|attribute| attribute.name() == "value");
        let value = match at.and_then(|at| proto.attribute.get(at)?.t.as_deref()) {
            Some(value) if Float::from_onnx(value.data_type()).is_none() => return Ok(proto),
            Some(value) => {
                tensor::floats(value, &self.graph.model.storage).map_err(Invalid::from)?
            }
            None => ArrayD::zeros(vec![1]),
        };
        let value = write::tensor("value", tensor::from_floats("", &value, Float::F64));
        proto.attribute = vec![value];
        Ok(proto)
    }

    /// Converts a cast: between floats it is an Identity in float64, if it changes no type in
    /// the file.
    fn cast(&self, node: &Node, proto: NodeProto) -> Result<NodeProto, Unproved> {
        let known = |index: usize| self.constants.element_type(node.input(index)?);
        let (from, to) = (known(0), self.cast_to(node));
        let is_float =
            |kind: Option<i32>| kind.is_some_and(|kind| Float::from_onnx(kind).is_some());
        let rounds = || Unproved::Rounds(node.label().to_owned());
        match (is_float(from), is_float(to)) {
            (true, true) if from == to => Ok(write::into_identity(proto)),
            (false, true) if from.is_some() => Ok(write::into_cast(proto, DataType::Double.into())),
            (_, true) => Err(rounds()),
            (_, false) => Ok(write::into_cast(proto, to.ok_or_else(rounds)?)),
        }
    }

    /// Returns what `node` gives, which measures a tensor of dimensions `dims`.
    ///
    /// # Errors
    /// Returns an error if no rule tells what it gives.
    pub fn measured(&self, node: &Node, dims: &[usize]) -> Result<Constant, Unproved> {
        let name = node.output().map(|output| self.graph.value(output).name);
        let name = name.unwrap_or_default();
        let given = MeasuredDims(dims.iter().map(|&size| i64::try_from(size).ok()).collect());
        let opset = self.graph.model.opset;
        let integers = shape_rules::output_integers(node, opset, 0, &given);
        let integers = integers.and_then(|list| list.into_iter().collect::<Option<Vec<i64>>>());
        let known = shape_rules::output_dims(node, opset, 0, &given);
        match (integers, known) {
            (Some(list), Some(dims)) => {
                let dims = dims.iter().map(|size| size.unwrap_or(1)).collect();
                Ok(TensorProto { dims, ..tensor::from_integers(name, &list) }.into())
            }
            _ => Err(Unproved::SizeUnknown(name.to_owned())),
        }
    }

    /// Returns the nodes of `cone` as they stand, and the constants that they read.
    ///
    /// # Errors
    /// Returns an error if one of these cannot be taken into float64.
    pub fn side(&self, cone: &Cone) -> Result<Side, Unproved> {
        let is_measured = |id: &NodeId| cone.measured.iter().any(|(node, _)| node == id);
        let constants = cone.constants.iter().map(|&id| self.value(id));
        let mut side = Side { nodes: Vec::new(), constants: constants.collect::<Result<_, _>>()? };
        for &id in cone.nodes.iter().filter(|id| !is_measured(id)) {
            let mut proto = self.node(id)?;
            let node = self.graph.node(id);
            if let (Some(axis), Some(second)) = (node.broadcast_axis(), node.input(1))
                && self.is_constant(second)
            {
                let constant = self.aligned(node, axis, self.value(second)?)?;
                let name = constant.name().to_owned();
                if let Some(input) = proto.input.get_mut(1) {
                    input.clone_from(&name);
                }
                side.constants.push(constant);
            }
            match self.rounds_sizes_to(id) {
                Some(float) => side.nodes.extend(self.in_own_type(node, proto, float)),
                None => side.push(proto),
            }
        }
        Ok(side)
    }

    /// Returns a node that computes in type `float`, between casts: 1/√32 has to be what the
    /// file makes of it, because the new nodes have that as a constant.
    fn in_own_type(&self, node: &Node, mut proto: NodeProto, float: Float) -> Vec<NodeProto> {
        let suffix = self.suffix();
        let mut nodes = Vec::with_capacity(node.inputs.len().saturating_add(2));
        let output = proto.output.first().cloned().unwrap_or_default();
        for (number, (read, name)) in node.inputs.iter().zip(&mut proto.input).enumerate() {
            if read.and_then(|id| self.float(id)).is_some() {
                let own = format!("{output}{suffix}.{number}");
                nodes.push(write::cast(name, &own, float.to_onnx()));
                *name = own;
            }
        }
        let own = format!("{output}{suffix}");
        if let Some(made) = proto.output.first_mut() {
            made.clone_from(&own);
        }
        if roles::casts(node) {
            proto = write::into_cast(proto, float.to_onnx());
        }
        nodes.extend([proto, write::cast(&own, &output, Float::F64.to_onnx())]);
        nodes
    }

    /// Returns a constant that before opset 7 met its operand from `axis` on, with the
    /// dimensions with which it meets the same axes now.
    fn aligned(
        &self,
        node: &Node,
        axis: usize,
        mut constant: Constant,
    ) -> Result<Constant, Unproved> {
        let operand = node.input(0).and_then(|operand| self.sizes.rank_and_more(operand));
        let rank = operand.map(|dims| dims.len());
        let rank = rank.ok_or_else(|| Unproved::SizeUnknown(node.label().to_owned()))?;
        let dims = &mut constant.header.dims;
        dims.resize(rank.saturating_sub(axis).max(dims.len()), 1);
        // Node names need not be unique; names of outputs are.
        let output = node.output().map_or("", |output| self.graph.value(output).name);
        let name = format!("{}{}.{output}", constant.name(), self.suffix());
        Ok(constant.called(name))
    }
}

/// The operand of a node that reads nothing but its shape.
struct MeasuredDims(Dims);

impl Operands for MeasuredDims {
    fn dims(&self, input: usize) -> Option<Dims> {
        (input == 0).then(|| self.0.clone())
    }

    fn integers(&self, _: usize) -> Option<Vec<Option<i64>>> {
        None
    }
}
