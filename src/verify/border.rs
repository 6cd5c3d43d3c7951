//! A border that is filled with numbers: what it is claimed to be, whether a tensor has it, and
//! nodes that put it there at every size.
//!
//! Knows one border, its tensor and nodes that pad; does not know which block needs it.

use std::sync::Arc;

use ndarray::{ArrayD, Dimension, IxDyn};

use crate::engine::Constant;
use crate::facts::shape_rules::Dims;
use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::names;
use crate::onnx::proto::NodeProto;
use crate::onnx::write;

/// A border that nodes put around a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct FilledBorder {
    /// The tensor without the border, NCHW.
    pub inner: ValueId,
    /// The tensor with the border.
    pub output: ValueId,
    /// The width of the border, before and behind, per spatial axis.
    pub pads: Vec<(i64, i64)>,
    /// What the border is filled with: one number, or one per channel.
    pub values: Vec<f64>,
}

/// Relative tolerance of the values in a filled border. The border counts as what the nodes
/// inside it give there if, channel by channel, both differ by no more than the rounding of
/// float32, in which exporters compute these values. Where values cancel, it also counts if that
/// difference changes what is made of them by no more than moving all constants of the old nodes
/// by rounding does.
const BORDER_TOLERANCE: f64 = 4e-6;

impl FilledBorder {
    /// Returns what fills the border, one number per channel; `None` unless `found` is `input`,
    /// to the last bit, with such a border around it.
    pub fn filling(&self, input: &ArrayD<f64>, found: &ArrayD<f64>) -> Option<Vec<f64>> {
        let before = |axis: usize| {
            let pads = axis.checked_sub(2).and_then(|axis| self.pads.get(axis));
            pads.copied().unwrap_or((0, 0))
        };
        let grown = |(axis, &size): (usize, &usize)| {
            let (begin, end) = before(axis);
            size.checked_add_signed(begin as isize)?.checked_add_signed(end as isize)
        };
        let expected: Option<Vec<usize>> = input.shape().iter().enumerate().map(grown).collect();
        if expected.as_deref() != Some(found.shape()) {
            return None;
        }
        let mut filling: Vec<Option<f64>> = vec![None; *found.shape().get(1)?];
        for (at, &value) in found.indexed_iter() {
            let at = at.as_array_view().to_vec();
            let inside = |(axis, &at): (usize, &usize)| {
                at.checked_add_signed((before(axis).0 as isize).saturating_neg())
            };
            let inside: Option<Vec<usize>> = at.iter().enumerate().map(inside).collect();
            let own = inside.and_then(|inside| input.get(IxDyn(&inside)));
            let of_channel = filling.get_mut(*at.get(1)?)?;
            if value != own.copied().unwrap_or_else(|| *of_channel.get_or_insert(value)) {
                return None;
            }
        }
        // A border of no width is what it is claimed to be.
        let filled = |(channel, value): (usize, Option<f64>)| value.or(self.value(channel));
        filling.into_iter().enumerate().map(filled).collect()
    }

    /// Returns the number with which `channel` is claimed to be filled. It is read here and not
    /// by the code of the algebra, on which the fuser relies, too.
    fn value(&self, channel: usize) -> Option<f64> {
        match self.values.as_slice() {
            [only] => Some(*only),
            values => values.get(channel).copied(),
        }
    }

    /// Returns whether `other` is filled, channel by channel, with the same numbers as this
    /// border, up to their rounding.
    pub fn is_nearly(&self, other: &Self) -> bool {
        (0..self.values.len().max(other.values.len())).all(|channel| {
            let values = self.value(channel).zip(other.value(channel));
            values.is_some_and(|(a, b)| (a - b).abs() <= BORDER_TOLERANCE * a.abs().max(b.abs()))
        })
    }

    /// Returns the dimensions of a tensor of dimensions `inner` with the border around it.
    pub fn around(&self, inner: &Dims) -> Dims {
        let mut dims = inner.clone();
        for (size, (begin, end)) in dims.iter_mut().skip(2).zip(&self.pads) {
            *size = size.map(|size| size.saturating_add(*begin).saturating_add(*end));
        }
        dims
    }

    /// Returns nodes that put the border around its tensor at every size, v + pad(x − v), and
    /// their constants.
    pub fn nodes(&self, graph: &Graph) -> (Vec<NodeProto>, Vec<Constant>) {
        let name = |id: ValueId| graph.value(id).name;
        let (inner, output) = (name(self.inner), name(self.output));
        let fresh = names::fresh(graph, ".border");
        let part = |part: &str| format!("{output}{fresh}.{part}");
        let [value, less, padded] = ["value", "less", "padded"].map(part);
        let channels = self.values.len() as i64;
        let dims: Vec<i64> = [channels].into_iter().chain(self.pads.iter().map(|_| 1)).collect();
        let constant = Constant::doubles(&value, &dims, Arc::new(self.values.clone()));
        let begins = self.pads.iter().map(|pads| pads.0);
        let ends = self.pads.iter().map(|pads| pads.1);
        let pads: Vec<i64> = [0, 0].into_iter().chain(begins).chain([0, 0]).chain(ends).collect();
        let mut constants = vec![constant];
        let pad = write::pad(graph.model.opset, "constant", &less, &padded, pads);
        constants.extend(pad.integers.into_iter().map(Constant::from));
        let nodes = vec![
            write::node("Sub", "", &[inner, &value], &less, vec![]),
            pad.node,
            write::node("Add", "", &[&padded, &value], output, vec![]),
        ];
        (nodes, constants)
    }
}
