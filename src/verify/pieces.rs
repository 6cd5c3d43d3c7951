//! A convolution cut into several, of some of its output channels each, so that its kernel need
//! not be in memory as a whole. A Gemm whose weights lie in rows is a convolution of one tap.
//!
//! What output channels are computed from follows from the node alone: rows of its kernel and of
//! its bias, and, of the input, the channels of their groups. Each side of a proof is cut by its
//! own nodes, and the pieces together make what the convolution makes, whoever wrote it; so a
//! proof sees what it would see without them.
//!
//! Knows one node and its constants; knows neither trials nor what is compared.

use std::ops::Range;

use crate::engine::Constant;
use crate::onnx::model::is_default_domain;
use crate::onnx::proto::NodeProto;
use crate::onnx::write::{self, AxisSlice};
use crate::verify::stages::ChannelDemand;

/// Some output channels of a convolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPiece {
    /// The output channels, as rows of the kernel.
    rows: Range<usize>,
    /// The input channels that these read; `None` if they read all.
    inputs: Option<Range<usize>>,
    /// The number of groups to which these belong.
    groups: usize,
}

/// One piece as nodes.
#[derive(Debug)]
pub struct CutConvolution {
    /// A Slice of the input, if the piece does not read all of it, and the convolution.
    pub nodes: Vec<NodeProto>,
    /// What these nodes read besides the input.
    pub constants: Vec<Constant>,
    /// The name of the tensor that they make.
    pub output: String,
}

/// A convolution whose kernel and bias are constants: a Conv (opset 1 to 22), or a Gemm (opset 7
/// to 13) of a transposed matrix.
pub struct CutNode<'n> {
    node: &'n NodeProto,
    kernel: &'n Constant,
    bias: Option<&'n Constant>,
    /// The channel axis of its input and of its output.
    axis: i64,
    /// Number of output channels.
    rows: usize,
    /// Number of weights of one output channel.
    row: usize,
    /// Number of input channels of one group.
    width: usize,
    groups: usize,
}

impl<'n> CutNode<'n> {
    /// Returns `node` as a convolution that can be cut; `None` if it is not one. `constant`
    /// looks constants up.
    pub fn of(
        node: &'n NodeProto,
        constant: impl Fn(&str) -> Option<&'n Constant>,
    ) -> Option<Self> {
        let told = |name: &str| node.attribute.iter().find(|attribute| attribute.name() == name);
        let is_told = |name: &str| told(name).is_some_and(|attribute| attribute.i() != 0);
        let axis = match node.op_type() {
            "Conv" => 1,
            "Gemm" if is_told("transB") && !is_told("transA") => -1,
            _ => return None,
        };
        if !is_default_domain(node.domain()) {
            return None;
        }
        let named = |index: usize| node.input.get(index).filter(|name| !name.is_empty());
        // A stored input is not among the tensors of a run, of which something can be demanded.
        if constant(named(0)?).is_some() {
            return None;
        }
        let kernel = constant(named(1)?)?;
        // A bias that is computed from what is fed is not cut.
        let bias = match named(2) {
            Some(name) => Some(constant(name)?),
            None => None,
        };
        let dims = kernel.header.dims.iter().map(|&size| usize::try_from(size).ok());
        let dims = dims.collect::<Option<Vec<usize>>>()?;
        let [rows, width, taps @ ..] = dims.as_slice() else { return None };
        let row = taps.iter().try_fold(*width, |row, &taps| row.checked_mul(taps))?;
        let groups = usize::try_from(told("group").map_or(1, |group| group.i())).ok()?;
        let is_whole = row.checked_mul(*rows)? == kernel.count()?
            && bias.is_none_or(|bias| {
                bias.header.dims == [*rows as i64] && bias.count() == Some(*rows)
            })
            && rows.checked_rem(groups)? == 0;
        let (rows, width) = (*rows, *width);
        is_whole.then_some(CutNode { node, kernel, bias, axis, rows, row, width, groups })
    }

    /// Cuts the output channels into pieces of at most `most` weights, or of one row: each of as
    /// many whole groups as fit or, if not even one fits, of some rows of one group.
    pub fn pieces(&self, most: usize) -> Vec<ChannelPiece> {
        let fit = most.checked_div(self.row).unwrap_or(self.rows).max(1);
        let of_group = self.rows.checked_div(self.groups).unwrap_or(0);
        if fit >= self.rows || of_group == 0 {
            return vec![ChannelPiece { rows: 0..self.rows, inputs: None, groups: self.groups }];
        }
        let (first, step) = if fit < of_group {
            (of_group, fit)
        } else {
            let step = fit.checked_div(of_group).unwrap_or(1).saturating_mul(of_group);
            (self.rows, step)
        };
        let stretches = (0..self.rows).step_by(first);
        let stretches = stretches.map(|start| start..start.saturating_add(first).min(self.rows));
        let pieces = stretches.flat_map(|stretch| {
            let starts = stretch.clone().step_by(step);
            starts.map(move |start| start..start.saturating_add(step).min(stretch.end))
        });
        pieces.map(|rows| self.piece(rows, of_group)).collect()
    }

    /// Returns the piece of these rows, which begin and end at borders of groups or lie in one
    /// group of `of_group` rows.
    fn piece(&self, rows: Range<usize>, of_group: usize) -> ChannelPiece {
        let group = rows.start.checked_div(of_group).unwrap_or(0);
        let groups = rows.len().checked_div(of_group).unwrap_or(1).max(1);
        let start = group.saturating_mul(self.width);
        let inputs = start..start.saturating_add(groups.saturating_mul(self.width));
        ChannelPiece { rows, inputs: (self.groups > 1).then_some(inputs), groups }
    }

    /// Returns what the input must be like. The engine sees that of a whole convolution alone:
    /// pieces would read some of its channels, or none.
    pub fn demand(&self) -> Option<ChannelDemand> {
        let tensor = self.node.input.first()?.clone();
        let channels = self.width.saturating_mul(self.groups);
        Some(ChannelDemand { tensor, channels, axis: self.axis })
    }

    /// Returns the nodes of one piece, for the operator set `opset`. Constants of equal pieces
    /// have equal names.
    pub fn cut(&self, piece: &ChannelPiece, opset: i64) -> CutConvolution {
        let Range { start, end } = piece.rows;
        let called = |name: &str| format!("{name}.{start}-{end}");
        let mut node = self.node.clone();
        let output = called(node.output.first().map_or("", String::as_str));
        node.output = vec![output.clone()];
        let rows_of = |constant: &Constant, row: usize| {
            constant.rows(&called(constant.name()), piece.rows.clone(), row)
        };
        let mut constants = vec![rows_of(self.kernel, self.row)];
        constants.extend(self.bias.map(|bias| rows_of(bias, 1)));
        for (name, constant) in node.input.iter_mut().skip(1).zip(&constants) {
            constant.name().clone_into(name);
        }
        let mut nodes = Vec::new();
        if let (Some(inputs), Some(input)) = (&piece.inputs, node.input.first_mut()) {
            let [start, end] = [inputs.start, inputs.end].map(|at| at as i64);
            let cut = AxisSlice { axis: self.axis, start, end };
            let slice = write::slice(opset, input, &format!("{output}.input"), &[cut]);
            constants.extend(slice.integers.into_iter().map(Constant::from));
            *input = format!("{output}.input");
            nodes.push(slice.node);
        }
        let group = node.attribute.iter_mut().find(|attribute| attribute.name() == "group");
        if let Some(group) = group {
            group.i = Some(piece.groups as i64);
        }
        nodes.push(node);
        CutConvolution { nodes, constants, output }
    }

    /// Returns the node that joins the outputs of the pieces to that of the convolution.
    pub fn joined(&self, pieces: &[String]) -> NodeProto {
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        write::concat(&pieces, self.node.output.first().map_or("", String::as_str), self.axis)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Which rows, of which input channels, in how many groups.
    type ExpectedPiece = (Range<usize>, Option<Range<usize>>, usize);

    /// 12 filters of two taps, and how they are cut.
    const CUTS: [(&str, usize, usize, usize, &[ExpectedPiece]); 7] = [
        ("it fits", 1, 4, 96, &[(0..12, None, 1)]),
        ("all read all", 1, 4, 48, &[(0..6, None, 1), (6..12, None, 1)]),
        ("the last is smaller", 1, 4, 63, &[(0..7, None, 1), (7..12, None, 1)]),
        (
            "whole groups",
            6,
            3,
            29,
            &[(0..4, Some(0..6), 2), (4..8, Some(6..12), 2), (8..12, Some(12..18), 2)],
        ),
        ("depthwise", 12, 1, 14, &[(0..7, Some(0..7), 7), (7..12, Some(7..12), 5)]),
        (
            "a part of a group",
            2,
            5,
            40,
            &[
                (0..4, Some(0..5), 1),
                (4..6, Some(0..5), 1),
                (6..10, Some(5..10), 1),
                (10..12, Some(5..10), 1),
            ],
        ),
        (
            "less than a row",
            3,
            1,
            1,
            &[
                (0..1, Some(0..1), 1),
                (1..2, Some(0..1), 1),
                (2..3, Some(0..1), 1),
                (3..4, Some(0..1), 1),
                (4..5, Some(1..2), 1),
                (5..6, Some(1..2), 1),
                (6..7, Some(1..2), 1),
                (7..8, Some(1..2), 1),
                (8..9, Some(2..3), 1),
                (9..10, Some(2..3), 1),
                (10..11, Some(2..3), 1),
                (11..12, Some(2..3), 1),
            ],
        ),
    ];

    fn kernel(width: usize) -> Constant {
        let numbers: Vec<f64> = (0..24 * width).map(|number| number as f64).collect();
        Constant::doubles("k", &[12, width as i64, 2], Arc::new(numbers))
    }

    #[test]
    fn every_output_channel_is_in_one_piece() {
        for (case, groups, width, most, expected) in CUTS {
            let kernel = kernel(width);
            let group = write::int("group", groups as i64);
            let node = write::node("Conv", "", &["x", "k"], "y", vec![group]);
            let cut = CutNode::of(&node, |name| (name == "k").then_some(&kernel)).unwrap();
            let found = cut.pieces(most);
            let found: Vec<ExpectedPiece> =
                found.into_iter().map(|piece| (piece.rows, piece.inputs, piece.groups)).collect();
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn what_is_no_convolution_of_constants_is_not_cut() {
        let (kernel, bias) = (kernel(1), Constant::doubles("b", &[1], Arc::new(vec![1.0])));
        // Its numbers lie in no run of bytes, of which rows would be a part.
        let mut listed = Constant::doubles("listed", &[12], Arc::new(vec![1.0; 12]));
        (listed.numbers, listed.header.double_data) = (None, vec![1.0; 12]);
        let constant = |name: &str| match name {
            "k" => Some(&kernel),
            "b" => Some(&bias),
            "listed" => Some(&listed),
            _ => None,
        };
        for (op, inputs, groups) in [
            ("ConvTranspose", vec!["x", "k"], 1),
            ("Conv", vec!["x", "other"], 1),
            ("Conv", vec!["k", "k"], 1),
            ("Conv", vec!["x", "k", "listed"], 1),
            ("Gemm", vec!["x", "k"], 1),
            ("Conv", vec!["x", "k", "other"], 1),
            ("Conv", vec!["x", "k", "b"], 1),
            ("Conv", vec!["x"], 1),
            ("Conv", vec!["x", "k"], 5),
            ("Conv", vec!["x", "k"], 0),
            ("Conv", vec!["x", "k"], -1),
        ] {
            let node = write::node(op, "", &inputs, "y", vec![write::int("group", groups)]);
            assert!(
                CutNode::of(&node, |name| constant(name)).is_none(),
                "{op} {inputs:?} {groups}"
            );
        }
    }
}
