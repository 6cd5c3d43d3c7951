//! The operators that have a meaning: one row each.
//!
//! A row names the function that reads a node as linear algebra; checks that hold for every node
//! are in [`reading`](crate::ops::reading). An operator without a row is opaque: no block goes
//! through it. `docs/operators.md` is generated from this table.
//!
//! Knows names, versions and functions; not what these find.

use std::ops::RangeInclusive;

use crate::facts::validity::Validity;
use crate::onnx::node::Node;
use crate::ops::meaning::Meaning;
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::ops::stop::Stop;
use crate::ops::{
    axes, conv, filled, frame, neutral, picked, pointwise, product, resized, sum, views,
};

/// The newest operator set whose operators are known here.
pub const NEWEST_OPSET: i64 = 28;

/// How nodes of one operator are read.
#[derive(Debug)]
#[cfg_attr(not(feature = "unstable"), expect(dead_code, reason = "some columns are its page's"))]
pub struct OperatorRow {
    /// The name of the operator in ONNX's own domain.
    pub name: &'static str,
    /// The definitions that are read, from the operator set that introduced the first of them to
    /// the one that introduced the last. A node of an older set has a definition that is not
    /// read.
    pub versions: RangeInclusive<i64>,
    /// What the operator is read as, in words.
    pub read_as: &'static str,
    /// The largest number of inputs that its definitions have; further ones would have no
    /// meaning.
    pub most_inputs: usize,
    /// Whether nodes before it, up to its operands, are read together with it.
    pub joins: bool,
    /// Whether it has a meaning for integers, too: other arithmetic on integers is about sizes
    /// and indices.
    pub of_integers: bool,
    /// The function that reads the operator.
    pub read: ReadRule,
}

/// The function that reads nodes of an operator, and narrows the inputs for which the reading is
/// right.
#[derive(Debug, Clone, Copy)]
pub enum ReadRule {
    /// It reads the node, and what is known of its inputs.
    Alone(fn(&Reader, &Node, &mut Validity) -> Result<Meaning, Stop>),
    /// It also reads what the nodes before it mean.
    AfterOthers(fn(&Reader, &Node, &Meanings, &mut Validity) -> Result<Meaning, Stop>),
}

use ReadRule::{AfterOthers, Alone};

/// Returns the row of an operator, or `None` if it has no meaning here.
pub fn row(op: &str) -> Option<&'static OperatorRow> {
    TABLE.iter().find(|row| row.name == op)
}

/// The table, as in the head of this module, in alphabetical order.
pub const TABLE: &[OperatorRow] = &[
    of("Add", 1..=14, 2, Alone(pointwise::add), "a sum of two tensors; a shift by a constant"),
    of("AveragePool", 1..=22, 1, Alone(conv::average_pool), "a filter of equal weights; a view"),
    of("BatchNormalization", 1..=15, 5, Alone(pointwise::norm), "a scale and a shift per channel"),
    of("Cast", 1..=25, 1, Alone(axes::cast), "another name, where the type stays").of_integers(),
    of("CastLike", 15..=25, 2, Alone(axes::cast_like), "another name, where the type stays"),
    of(
        "Clip",
        1..=13,
        3,
        Alone(neutral::clip),
        "another name, where its bounds are beyond all numbers",
    ),
    of("Concat", 4..=13, MANY, Alone(sum::concat), "circular padding; tensors in a row").joining(),
    of("Conv", 1..=22, 3, Alone(conv::conv), "a convolution"),
    of("ConvTranspose", 1..=22, 3, Alone(conv::conv_transpose), "a transposed convolution"),
    of("DepthToSpace", 1..=13, 1, Alone(views::depth_to_space), "a view"),
    of("Div", 1..=14, 2, Alone(pointwise::divide), "a scale, by a constant"),
    of("Dropout", 1..=22, 3, Alone(axes::dropout), "another name, at inference"),
    of(
        "Einsum",
        12..=12,
        2,
        Alone(product::einsum),
        "a product with a constant matrix; another order of axes, or another name",
    ),
    of("Expand", 8..=13, 2, Alone(axes::expand), "another name, where all sizes stay").joining(),
    of("Flatten", 1..=25, 1, Alone(views::flatten), "a view"),
    of("Gather", 1..=13, 2, Alone(picked::gather), "channels, by a constant list"),
    of("Gemm", 7..=13, 3, Alone(product::gemm), "a product with a constant, and a bias"),
    of("GlobalAveragePool", 1..=22, 1, Alone(views::global_average), "a view"),
    of("Identity", 1..=25, 1, Alone(axes::identity), "another name"),
    of("LeakyRelu", 1..=16, 1, Alone(neutral::leaky_relu), "another name, where its slope is 1"),
    of("MatMul", 7..=13, 2, Alone(product::matmul), "a product with a constant"),
    of(
        "Max",
        8..=13,
        MANY,
        Alone(neutral::maximum),
        "another name, beside numbers below all others",
    ),
    of("MaxPool", 1..=22, 1, Alone(conv::max_pool), "a crop, of windows of one element"),
    of("Mean", 8..=13, MANY, Alone(sum::mean), "a sum of any number of tensors, in equal shares"),
    of(
        "Min",
        8..=13,
        MANY,
        Alone(neutral::minimum),
        "another name, beside numbers above all others",
    ),
    of("Mul", 1..=14, 2, Alone(pointwise::multiply), "a scale, by a constant"),
    of("Neg", 1..=13, 1, Alone(pointwise::negation), "a scale by −1"),
    of("PRelu", 1..=16, 2, Alone(neutral::prelu), "another name, where its slopes are 1"),
    of("Pad", 2..=25, 4, AfterOthers(frame::pad), "a border of zeros, or of what is padded"),
    of("Pow", 7..=15, 2, Alone(neutral::power), "another name, to the power of 1"),
    of(
        "ReduceMean",
        1..=18,
        2,
        Alone(sum::stacked_mean),
        "a view, along axes that are named; a mean of tensors that were stacked",
    )
    .joining(),
    of("ReduceSum", 1..=13, 2, Alone(sum::stacked_sum), "a sum of tensors that were stacked")
        .joining(),
    of(
        "Reshape",
        5..=25,
        2,
        Alone(views::reshape),
        "a view, if at most one size that it makes is unknown",
    )
    .joining(),
    of("Resize", 10..=19, 4, Alone(resized::resize), "a view, by constants, without cubic terms"),
    of("ScatterND", 11..=18, 3, AfterOthers(filled::scatter), "a border that is filled").joining(),
    of("Slice", 1..=13, 5, Alone(frame::slice), "a crop"),
    of("SpaceToDepth", 1..=13, 1, Alone(views::space_to_depth), "a view"),
    of("Split", 2..=18, 2, Alone(sum::split), "parts of a tensor"),
    of("Squeeze", 1..=25, 2, Alone(views::squeeze), "a view, without axes that are named"),
    of("Sub", 1..=14, 2, Alone(pointwise::subtract), "a difference; a shift by a constant"),
    of("Sum", 1..=13, MANY, AfterOthers(sum::sum), "a sum of any number of tensors"),
    of("Tile", 6..=13, 2, Alone(neutral::tile), "another name, where nothing is repeated"),
    of("Transpose", 1..=25, 1, AfterOthers(filled::transpose_or_border), "another order of axes")
        .joining(),
    of("Unsqueeze", 1..=25, 2, Alone(views::unsqueeze), "a view"),
    of("Upsample", 7..=9, 2, Alone(resized::resize), "a view, by constants"),
];

/// Any number of inputs.
const MANY: usize = usize::MAX;

const fn of(
    name: &'static str,
    versions: RangeInclusive<i64>,
    most_inputs: usize,
    read: ReadRule,
    read_as: &'static str,
) -> OperatorRow {
    OperatorRow { name, versions, read_as, most_inputs, joins: false, of_integers: false, read }
}

impl OperatorRow {
    const fn joining(self) -> Self {
        OperatorRow { joins: true, ..self }
    }

    const fn of_integers(self) -> Self {
        OperatorRow { of_integers: true, ..self }
    }
}
