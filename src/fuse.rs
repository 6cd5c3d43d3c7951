//! From plan to tensors and nodes: the arithmetic is done here, once per block.
//!
//! Weights are read, fused in float64 and rounded once to the model's type.

use ndarray::{ArrayD, IxDyn};

use crate::affine::{Affine, Linear, Refusal};
use crate::onnx::graph::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::proto::{AttributeProto, NodeProto, TensorProto};
use crate::onnx::tensor;
use crate::plan::Block;
use crate::region::read::{Map, Reader};
use crate::region::{Kind, Part, Readings};

/// What takes a block's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Fused {
    /// New nodes; the last one computes the block's output.
    pub nodes: Vec<NodeProto>,
    /// New initializers, in the model's type.
    pub tensors: Vec<TensorProto>,
    /// The float initializers before rounding, by name.
    pub exact: Vec<(String, ArrayD<f64>)>,
    /// Tensors that the new nodes read.
    pub roots: Vec<ValueId>,
}

/// Why a planned block could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum FuseError {
    /// The model is malformed.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The weights refuse what the shapes allowed.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// A kernel is computed by a sub-graph that the engine cannot run.
    #[error("a kernel is computed by constant nodes that could not be evaluated")]
    NotEvaluated,
    /// A fused weight does not exist in the model's type.
    #[error("a fused weight is not finite in the model's type")]
    NotFinite,
}

/// Computes what takes the place of `block`.
///
/// # Errors
/// If a weight cannot be read, or a fused one is not finite.
pub fn fuse(reader: &Reader, readings: &Readings, block: &Block) -> Result<Fused, FuseError> {
    let weights = |map: &Map| map.affine(reader.constants)?.ok_or(FuseError::NotEvaluated);
    let mut parts = block.region.evaluate(readings, reader, &Affine::identity(), weights)?;
    // A convolution first, so that what is subtracted has something to be subtracted from.
    parts.sort_by_key(|part| part.kind != Kind::Weighted);
    let mut fused = Fused {
        nodes: vec![],
        tensors: vec![],
        exact: vec![],
        roots: parts.iter().map(|p| p.root).collect(),
    };
    let output = &reader.graph.value(block.region.output).name;
    let last = parts.len().saturating_sub(1);
    let mut sum = String::new();
    for (index, part) in parts.iter().enumerate() {
        // Only the last node makes the block's output.
        let stem = if last == 0 { block.stem.clone() } else { format!("{}.{index}", block.stem) };
        let root = &reader.graph.value(part.root).name;
        let term = match part.kind {
            Kind::Plain(_) => root.clone(),
            _ if last == 0 => fused.convolution(reader, block, part, &stem, root, output)?,
            _ => fused.convolution(reader, block, part, &stem, root, &stem)?,
        };
        sum = match index {
            0 => term,
            _ => {
                let op = if part.kind == Kind::Plain(true) { "Sub" } else { "Add" };
                let result = if index == last { output.clone() } else { format!("{stem}.sum") };
                let node_name = format!("{stem}.add");
                fused.nodes.push(node(op, &node_name, &[&sum, &term], &result, vec![]));
                result
            }
        };
    }
    Ok(fused)
}

impl Fused {
    /// Appends the convolution of `part`, behind a Slice where its windows start
    /// inside the input: engines refuse negative pads. Returns its output's name.
    fn convolution(
        &mut self,
        reader: &Reader,
        block: &Block,
        part: &Part<Affine>,
        stem: &str,
        root: &str,
        output: &str,
    ) -> Result<String, FuseError> {
        let geometry = part.map.geometry();
        let pads: Vec<(i64, i64)> = geometry.windows.iter().map(|window| window.pads()).collect();
        let input = if pads.iter().any(|&(begin, end)| begin < 0 || end < 0) {
            self.crop(reader.graph.model.opset, &format!("{stem}.crop"), root, &pads)
        } else {
            root.to_owned()
        };
        let axis = |value: fn(&crate::affine::Window) -> i64| -> Vec<i64> {
            geometry.windows.iter().map(value).collect()
        };
        let padding: Vec<i64> = pads
            .iter()
            .map(|pad| pad.0.max(0))
            .chain(pads.iter().map(|pad| pad.1.max(0)))
            .collect();
        let groups = geometry.channels.map_or(1, |channels| channels.groups);
        let weight = format!("{stem}.weight");
        let bias = format!("{stem}.bias");
        self.weights(&weight, part.map.kernel().clone(), block)?;
        let mut inputs = vec![input.as_str(), weight.as_str()];
        if geometry.shifted {
            let values = part.map.bias().to_vec();
            let values = ArrayD::from_shape_vec(IxDyn(&[values.len()]), values).unwrap_or_default();
            self.weights(&bias, values, block)?;
            inputs.push(&bias);
        }
        let attributes = vec![
            ints("dilations", axis(|window| window.step)),
            int("group", groups as i64),
            ints("kernel_shape", axis(|window| window.taps)),
            ints("pads", padding),
            ints("strides", axis(|window| window.stride)),
        ];
        self.nodes.push(node("Conv", stem, &inputs, output, attributes));
        Ok(output.to_owned())
    }

    fn weights(&mut self, name: &str, exact: ArrayD<f64>, block: &Block) -> Result<(), FuseError> {
        if exact.iter().any(|&value| !block.float.round(value).is_finite()) {
            return Err(FuseError::NotFinite);
        }
        self.tensors.push(tensor::from_floats(name, &exact, block.float));
        self.exact.push((name.to_owned(), exact));
        Ok(())
    }

    fn crop(&mut self, opset: i64, name: &str, root: &str, pads: &[(i64, i64)]) -> String {
        let cut: Vec<(i64, &(i64, i64))> =
            (2..).zip(pads).filter(|(_, pads)| pads.0 < 0 || pads.1 < 0).collect();
        let starts: Vec<i64> = cut.iter().map(|(_, pads)| (-pads.0).max(0)).collect();
        let end = |pads: &(i64, i64)| if pads.1 < 0 { pads.1 } else { i64::MAX };
        let ends: Vec<i64> = cut.iter().map(|(_, pads)| end(pads)).collect();
        let axes: Vec<i64> = cut.iter().map(|&(axis, _)| axis).collect();
        let lists = [("starts", starts), ("ends", ends), ("axes", axes)];
        if opset < 10 {
            let attributes = lists.into_iter().map(|(list, values)| ints(list, values)).collect();
            self.nodes.push(node("Slice", name, &[root], name, attributes));
            return name.to_owned();
        }
        let lists =
            lists.map(|(list, values)| tensor::from_integers(&format!("{name}.{list}"), &values));
        let mut inputs = vec![root];
        inputs.extend(lists.iter().map(TensorProto::name));
        self.nodes.push(node("Slice", name, &inputs, name, vec![]));
        self.tensors.extend(lists);
        name.to_owned()
    }
}

fn node(
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

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Int.into()),
        i: Some(value),
        ..AttributeProto::default()
    }
}

fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Ints.into()),
        ints: values,
        ..AttributeProto::default()
    }
}
