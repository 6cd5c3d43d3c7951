//! What is in the engine at a time of one slice of a model: all of it or, if it begins with a large
//! convolution, some of its output channels, so that a run takes no more with a larger kernel.
//!
//! Knows nodes and constants; runs nothing.

use std::collections::HashSet;

use prost::Message;

use crate::engine::{Constant, Limits, Source};
use crate::onnx::proto::NodeProto;
use crate::onnx::storage::Storage;
use crate::onnx::write;
use crate::verify::pieces::CutNode;
use crate::verify::stages::ChannelDemand;

/// Nodes, the stored tensors that they read, and the names of what they make that is wanted.
#[derive(Debug, Clone)]
pub struct SliceModel {
    /// The nodes, in order.
    pub nodes: Vec<NodeProto>,
    /// Stored tensors that they read.
    pub constants: Vec<Constant>,
    /// Names of the tensors that they make and that are wanted.
    pub outputs: Vec<String>,
    /// The version of the operator set.
    pub opset: i64,
}

/// A slice whose first convolution is cut into several.
#[derive(Debug)]
pub struct InRows {
    /// The pieces of the convolution, each of which makes one tensor.
    pub rows: Vec<SliceModel>,
    /// What joins these tensors, and the rest of the slice.
    pub joined: SliceModel,
    /// What the convolution's input must be like.
    pub demand: ChannelDemand,
}

impl SliceModel {
    /// Returns the slice with its first node cut into convolutions of at most `most` weights, or of
    /// one row each; `None` if that node is no convolution of more, or if a new name is taken.
    pub fn in_rows(&self, most: usize) -> Option<InRows> {
        let (node, others) = self.nodes.split_first()?;
        let constant = |name: &str| self.constants.iter().find(|own| own.name() == name);
        let cut = CutNode::of(node, constant)?;
        let pieces = cut.pieces(most);
        if pieces.len() < 2 {
            return None;
        }
        let opset = self.opset;
        let row = |piece| {
            let cut = cut.cut(piece, opset);
            let (nodes, constants, outputs) = (cut.nodes, cut.constants, vec![cut.output]);
            SliceModel { nodes, constants, outputs, opset }
        };
        let rows: Vec<SliceModel> = pieces.iter().map(row).collect();
        let in_all = self.nodes.iter().flat_map(|node| node.input.iter().chain(&node.output));
        let named: HashSet<&str> = in_all.map(String::as_str).collect();
        let mut new = rows.iter().flat_map(|row| {
            row.constants.iter().map(Constant::name).chain(row.outputs.iter().map(String::as_str))
        });
        if new.any(|name| named.contains(name)) {
            return None;
        }
        let made: Vec<String> = rows.iter().flat_map(|row| row.outputs.clone()).collect();
        let nodes = std::iter::once(cut.joined(&made)).chain(others.iter().cloned()).collect();
        let wanted = others.iter().flat_map(|node| &node.input).chain(&self.outputs);
        let wanted: HashSet<&str> = wanted.map(String::as_str).collect();
        let constants = self.constants.iter().filter(|own| wanted.contains(own.name()));
        let constants = constants.cloned().collect();
        let joined = SliceModel { nodes, constants, outputs: self.outputs.clone(), opset };
        Some(InRows { rows, joined, demand: cut.demand()? })
    }

    /// Returns the number of bytes of its constants.
    pub fn weights(&self) -> usize {
        let each = self.constants.iter().map(|weight| weight.header.raw_data().len());
        each.fold(0, usize::saturating_add)
    }

    /// Returns the model as the engine takes it; `storage` has the side files to which nodes refer.
    pub fn source(self, storage: Storage, limits: Limits) -> Source {
        let outputs: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let model = write::model(self.opset, Vec::new(), self.nodes, Vec::new(), &outputs);
        let bytes = model.encode_to_vec().into();
        Source { bytes, constants: self.constants, storage, limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Nodes as operator, inputs and output, of which `k` is stored (4 rows of 2 numbers) and `b`
    /// (4 numbers); in how many rows they run, and what then joins these.
    type CutCase = (
        &'static [(&'static str, &'static [&'static str], &'static str)],
        usize,
        &'static [&'static str],
    );
    const CUTS: [CutCase; 9] = [
        (&[("Conv", &["x", "k"], "y")], 2, &["Concat"]),
        (&[("Conv", &["x", "k", "b"], "y")], 2, &["Concat"]),
        (&[("Gemm", &["x", "k"], "z"), ("Add", &["z", "b"], "y")], 2, &["Concat", "Add"]),
        (&[("Gemm on its side", &["x", "k"], "y")], 0, &[]),
        (&[("Relu", &["x"], "z"), ("Conv", &["z", "k"], "y")], 0, &[]),
        (&[("Conv", &["k", "k"], "y")], 0, &[]),
        (&[("Conv", &["x", "fed"], "y")], 0, &[]),
        (&[("Conv", &["k.0-2", "k"], "y")], 0, &[]),
        (&[("Conv", &["x", "k"], "z"), ("Add", &["z", "z.2-4"], "y")], 0, &[]),
    ];

    #[test]
    fn the_first_convolution_is_cut() {
        let stored = |name: &str, dims: &[i64]| {
            let count = dims.iter().product::<i64>() as usize;
            Constant::doubles(name, dims, Arc::new(vec![1.0; count]))
        };
        for (nodes, rows, joins) in CUTS {
            let of = |&(op, inputs, output): &(&'static str, &[&str], &str)| {
                let is_gemm = op.starts_with("Gemm");
                let transposed = (op == "Gemm").then(|| write::int("transB", 1));
                let op = if is_gemm { "Gemm" } else { op };
                write::node(op, "", inputs, output, transposed.into_iter().collect())
            };
            let is_gemm = nodes[0].0.starts_with("Gemm");
            let kernel = if is_gemm { stored("k", &[4, 2]) } else { stored("k", &[4, 2, 1, 1]) };
            let constants = vec![kernel, stored("b", &[4])];
            let (nodes, outputs) = (nodes.iter().map(of).collect(), vec!["y".to_owned()]);
            let model = SliceModel { nodes, constants, outputs, opset: 17 };
            let cut = model.in_rows(4);
            assert_eq!(cut.as_ref().map_or(0, |cut| cut.rows.len()), rows, "{model:?}");
            let joined = cut.iter().flat_map(|cut| &cut.joined.nodes);
            assert_eq!(joined.map(NodeProto::op_type).collect::<Vec<_>>(), joins, "{model:?}");
            assert!(model.in_rows(8).is_none(), "{model:?}");
        }
    }
}
