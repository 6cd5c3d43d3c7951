//! A border that is filled with numbers: what it is claimed to be, whether a tensor has it,
//! and nodes that put it there at every size.
//!
//! Knows one border, its tensor and nodes that pad; not which block needs it.

use std::sync::Arc;

use ndarray::{ArrayD, Dimension, IxDyn};

use crate::engine::Constant;
use crate::facts::shape_rules::Dims;
use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::names;
use crate::onnx::proto::NodeProto;
use crate::onnx::write;

/// Nodes that put a border around a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct FilledBorder {
    /// The tensor, NCHW.
    pub inner: ValueId,
    /// That with the border.
    pub output: ValueId,
    /// How wide it is, before and behind, per spatial axis.
    pub pads: Vec<(i64, i64)>,
    /// What stands in it: one number, or one per channel.
    pub values: Vec<f64>,
}

/// A filled border counts as what the nodes inside it give there if its values and theirs
/// differ by no more than the rounding of float32, in which exporters compute them, channel by
/// channel; or, where they cancel, if that does no more to what is made of them than so much does
/// to all constants of the old nodes.
const BORDER_TOLERANCE: f64 = 4e-6;

impl FilledBorder {
    /// What fills the border, one number per channel; `None` unless `found` is `input` to the last
    /// bit, with such a border around it.
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

    /// What it is claimed to be filled with. Read here and not by the mathematics, which the
    /// fuser believes, too.
    fn value(&self, channel: usize) -> Option<f64> {
        match self.values.as_slice() {
            [only] => Some(*only),
            values => values.get(channel).copied(),
        }
    }

    /// Whether what fills `other`, channel by channel, is what fills this one, up to the rounding
    /// of these numbers.
    pub fn is_nearly(&self, other: &Self) -> bool {
        (0..self.values.len().max(other.values.len())).all(|channel| {
            let values = self.value(channel).zip(other.value(channel));
            values.is_some_and(|(a, b)| (a - b).abs() <= BORDER_TOLERANCE * a.abs().max(b.abs()))
        })
    }

    /// The dimensions of a tensor of dimensions `inner` with the border.
    pub fn around(&self, inner: &Dims) -> Dims {
        let mut dims = inner.clone();
        for (size, (begin, end)) in dims.iter_mut().skip(2).zip(&self.pads) {
            *size = size.map(|size| size.saturating_add(*begin).saturating_add(*end));
        }
        dims
    }

    /// Nodes that put the border around its tensor at every size: v + pad(x − v).
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
