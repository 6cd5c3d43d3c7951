//! What is known of ONNX's operators: a table with one row for each.
//!
//! A row says which shapes and integers a node gives and demands ([`shape_rules`]), of which
//! type its result is, what it reads of its inputs, and how it is evaluated if these are
//! constant. Nothing is known of an operator that has no row. What an operator means as linear
//! algebra is said in `ops`, not here.
//!
//! Knows names and rules; knows no node.
//!
//! [`shape_rules`]: crate::facts::shape_rules

use crate::facts::estimate;
use crate::facts::ranges;
use crate::facts::row::{
    FIRST, FoldingKind, FoldingRule, InputsRead, KernelUse, Operator, ShapeRule, TypeRule, folding,
};
use crate::facts::shape_rules::asked::DimsRule;
use crate::facts::shape_rules::{
    along, axes, demands, elementwise, integers, made, pieces, products, resize, windows,
};
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;

/// Returns the row of the operator `name` of ONNX's own domain; `None` if nothing is known of
/// it.
pub fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        // Element by element.
        "Abs" => KEEPS_SHAPE.holding(integers::absolute).folding(EXACT.within(ranges::opposite)),
        "Neg" => KEEPS_SHAPE
            .holding(integers::negated)
            .folding(EXACT.within(ranges::opposite))
            .alike_at_all_sizes(),
        "Not" => KEEPS_SHAPE.holding(integers::not).of_type(BOOL).folding(MOVES),
        "Identity" => KEEPS_SHAPE.holding(integers::kept).folding(KEEPS).alike_at_all_sizes(),
        "Cast" => KEEPS_SHAPE
            .holding(integers::cast)
            .of_type(TypeRule::OfTo)
            .folding(CASTS)
            .alike_at_all_sizes(),
        "CastLike" => KEEPS_SHAPE
            .of_type(TypeRule::OfInput(1))
            .reading(InputsRead::ElementsThenType)
            .folding(CASTS)
            .alike_at_all_sizes(),
        "Ceil" | "Floor" | "Reciprocal" | "Round" | "Sqrt" => KEEPS_SHAPE.folding(ROUNDS_ONCE),
        "Clip" | "Relu" | "Sign" => KEEPS_SHAPE.folding(EXACT),
        "Erf" | "Exp" | "Log" | "Sigmoid" | "Tanh" => KEEPS_SHAPE.folding(COMPUTES),
        "Elu" | "Gelu" | "HardSigmoid" | "HardSwish" | "LeakyRelu" | "Mish" | "PRelu" | "Selu"
        | "Softplus" => KEEPS_SHAPE.of_type(FIRST),
        "DequantizeLinear" => KEEPS_SHAPE.of_type(TypeRule::OfOutputType),
        "Acos" | "Acosh" | "Asin" | "Asinh" | "Atan" | "Atanh" | "Bernoulli" | "BitwiseNot"
        | "Celu" | "Cos" | "Cosh" | "IsInf" | "IsNaN" | "QuantizeLinear" | "RandomNormalLike"
        | "RandomUniformLike" | "ScaledTanh" | "Shrink" | "Sin" | "Sinh" | "Softsign" | "Swish"
        | "Tan" | "ThresholdedRelu" => KEEPS_SHAPE,
        "Dropout" => KEEPS_SHAPE.outputs(2).of_type(FIRST),
        "Add" => BROADCASTS.holding(integers::sum).folding(EXACT).alike_at_all_sizes(),
        "Sub" => BROADCASTS.holding(integers::difference).folding(EXACT).alike_at_all_sizes(),
        "Mul" => BROADCASTS.holding(integers::product).folding(EXACT).alike_at_all_sizes(),
        "Div" => BROADCASTS.holding(integers::quotient).folding(EXACT.within(ranges::quotient)),
        "Mod" => {
            BROADCASTS.holding(integers::remainder).folding(IN_INTEGERS.within(ranges::quotient))
        }
        "Pow" => BROADCASTS.folding(IN_INTEGERS.within(ranges::power)),
        "Max" => BROADCASTS_ALL.holding(integers::largest).folding(EXACT),
        "Min" => BROADCASTS_ALL.holding(integers::smallest).folding(EXACT),
        "Mean" => BROADCASTS_ALL.folding(COMPUTES),
        "Sum" => BROADCASTS_ALL.folding(IN_INTEGERS.rounding_once_of(2)),
        "Equal" => COMPARES.holding(integers::equal).alike_at_all_sizes(),
        "Greater" => COMPARES.holding(integers::greater),
        "GreaterOrEqual" => COMPARES.holding(integers::greater_or_equal),
        "Less" => COMPARES.holding(integers::less),
        "LessOrEqual" => COMPARES.holding(integers::less_or_equal),
        "And" => COMPARES.holding(integers::and),
        "Or" => COMPARES.holding(integers::or),
        "Xor" => COMPARES,
        "Where" => BROADCASTS
            .holding(integers::chosen)
            .of_type(TypeRule::OfInput(1))
            .folding(MOVES)
            .alike_at_all_sizes(),
        "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" => BROADCASTS,
        // Along axes, with the shape kept.
        "CumSum" => KEEPS_SHAPE.folding(IN_INTEGERS.within(ranges::sum_of_all)),
        "ScatterElements" | "ScatterND" | "Trilu" => KEEPS_SHAPE.folding(MOVES),
        "Softmax" => KEEPS_SHAPE.of_type(FIRST),
        "CumProd"
        | "EyeLike"
        | "GroupNormalization"
        | "Hardmax"
        | "LRN"
        | "LogSoftmax"
        | "LpNormalization"
        | "MeanVarianceNormalization"
        | "RMSNormalization"
        | "ReverseSequence"
        | "Scatter"
        | "TensorScatter" => KEEPS_SHAPE,
        "BatchNormalization" => of(products::batch_norm)
            .outputs(5)
            .demanding(demands::of_channels)
            .folding(COMPUTES.in_dialect().taken_if(has_channels)),
        "InstanceNormalization" => {
            of(products::instance_norm).demanding(demands::of_channels).of_type(FIRST)
        }
        "LayerNormalization" => {
            of(elementwise::layer_norm).outputs(3).demanding(demands::kept).of_type(FIRST)
        }
        "DynamicQuantizeLinear" => of(elementwise::quantized).outputs(3).demanding(demands::kept),
        // Windows.
        "Conv" => of(windows::conv)
            .demanding(demands::conv)
            .of_type(TypeRule::OfAnyInput)
            .sliding(KernelUse::Gathers)
            .folding(COMPUTES.growing(estimate::convolved).taken_if(is_convolution)),
        "ConvInteger" | "DeformConv" => of(windows::conv).demanding(demands::conv_without_bias),
        "QLinearConv" => of(windows::quantized_conv),
        "ConvTranspose" => of(windows::conv_transpose)
            .demanding(demands::conv_transpose)
            .of_type(TypeRule::OfAnyInput)
            .sliding(KernelUse::Scatters),
        "AveragePool" => of(windows::pool).demanding(demands::pool).of_type(FIRST),
        "LpPool" => of(windows::pool).demanding(demands::pool),
        "MaxPool" => of(windows::pool).outputs(2).demanding(demands::pool).of_type(FIRST),
        "MaxUnpool" => of(windows::max_unpool).demanding(demands::pool),
        "GlobalAveragePool" | "GlobalMaxPool" => {
            of(windows::global_pool).demanding(demands::global_pool).of_type(FIRST)
        }
        "GlobalLpPool" => of(windows::global_pool).demanding(demands::global_pool),
        "MaxRoiPool" => of(windows::max_roi_pool),
        "RoiAlign" => of(windows::roi_align),
        "GridSample" => of(windows::grid_sample),
        // Products and recurrent networks.
        "Gemm" => of(products::gemm)
            .demanding(demands::gemm)
            .of_type(TypeRule::OfAnyInput)
            .folding(COMPUTES.taking(estimate::multiplied)),
        "MatMul" => of(products::matmul)
            .demanding(demands::matmul)
            .of_type(TypeRule::OfAnyInput)
            .folding(COMPUTES.taking(estimate::multiplied)),
        "MatMulInteger" => of(products::matmul).demanding(demands::matmul),
        "QLinearMatMul" => of(products::quantized_matmul),
        "Einsum" => of(products::einsum).folding(COMPUTES.growing(estimate::summed).in_dialect()),
        "Det" => of(products::det),
        "GRU" | "RNN" => of(products::recurrent).outputs(2).demanding(demands::recurrent),
        "LSTM" => of(products::recurrent).outputs(3).demanding(demands::recurrent),
        // Where elements stand.
        "Pad" => of(pieces::pad).demanding(demands::pad).folding(MOVES.growing(estimate::padded)),
        "Slice" => of(pieces::slice)
            .holding(integers::slice)
            .demanding(demands::slice)
            .folding(MOVES)
            .alike_at_all_sizes(),
        "Concat" => of(pieces::concat)
            .holding(integers::concat)
            .demanding(demands::concat)
            .folding(MOVES.growing(estimate::of_elements))
            .alike_at_all_sizes(),
        "Split" => of(pieces::split).with_equal_outputs().holding(integers::split).folding(MOVES),
        "SplitToSequence" => of(pieces::split_to_sequence).of_type(FIRST),
        "SequenceAt" => of(pieces::sequence_at).of_type(FIRST),
        "Transpose" => of(axes::transpose)
            .holding(integers::transpose)
            .demanding(demands::transpose)
            .folding(MOVES)
            .alike_at_all_sizes(),
        "Flatten" => of(axes::flatten).holding(integers::kept).folding(MOVES).alike_at_all_sizes(),
        "Reshape" => of(axes::reshape).holding(integers::kept).folding(MOVES).alike_at_all_sizes(),
        "Squeeze" => of(axes::squeeze)
            .holding(integers::kept)
            .demanding(demands::squeeze)
            .folding(MOVES)
            .alike_at_all_sizes(),
        "Unsqueeze" => of(axes::unsqueeze)
            .holding(integers::kept)
            .demanding(demands::unsqueeze)
            .folding(MOVES)
            .alike_at_all_sizes(),
        "Expand" => of(axes::expand)
            .holding(integers::expand)
            .folding(MOVES.growing(estimate::expanded))
            .alike_at_all_sizes(),
        "Tile" => {
            of(pieces::tile).holding(integers::tile).folding(MOVES.growing(estimate::repeated))
        }
        "Gather" => of(along::gather)
            .holding(integers::gather)
            .folding(MOVES.taking(estimate::gathered))
            .alike_at_all_sizes(),
        "GatherElements" => of(along::gather_elements).folding(MOVES),
        "GatherND" => of(along::gather_nd),
        "Compress" => of(along::compress),
        "OneHot" => of(along::one_hot),
        "TopK" => of(along::top_k).outputs(2),
        "DepthToSpace" => of(axes::depth_to_space).demanding(demands::of_rank_4).folding(MOVES),
        "SpaceToDepth" => {
            of(axes::space_to_depth).demanding(demands::space_to_depth).of_type(FIRST)
        }
        "Resize" => of(resize::resize).of_type(FIRST),
        "Upsample" => of(resize::upsample),
        "NonZero" => of(made::non_zero),
        "NonMaxSuppression" => of(made::non_max_suppression),
        // Over axes.
        "ReduceMax" => of(along::reduce).holding(integers::largest_of_all).folding(EXACT),
        "ReduceMin" => of(along::reduce).holding(integers::smallest_of_all).folding(EXACT),
        "ReduceProd" => of(along::reduce)
            .holding(integers::product_of_all)
            .folding(IN_INTEGERS.within(ranges::product_of_all)),
        "ReduceSum" => of(along::reduce)
            .holding(integers::sum_of_all)
            .folding(IN_INTEGERS.within(ranges::sum_of_all)),
        "ReduceL2" | "ReduceMean" | "ReduceSumSquare" => of(along::reduce).folding(COMPUTES),
        "ReduceL1" | "ReduceLogSum" | "ReduceLogSumExp" => of(along::reduce),
        "ArgMax" | "ArgMin" => of(along::arg_reduce),
        // Made from shapes and numbers.
        "Constant" => of(made::constant)
            .holding(integers::constant)
            .of_type(TypeRule::OfStored)
            .alike_at_all_sizes(),
        "ConstantOfShape" => of(made::constant_of_shape)
            .holding(integers::constant_of_shape)
            .of_type(TypeRule::OfValue)
            .folding(MOVES.growing(estimate::of_shape).in_dialect())
            .alike_at_all_sizes(),
        "Shape" => of(made::shape)
            .holding(integers::shape)
            .of_type(INT64)
            .reading(InputsRead::Sizes)
            .folding(MOVES),
        "Size" => of(made::scalar)
            .holding(integers::size)
            .of_type(INT64)
            .reading(InputsRead::Sizes)
            .folding(MOVES),
        "Range" => of(made::range)
            .holding(integers::range)
            .folding(IN_INTEGERS.growing(estimate::range))
            .alike_at_all_sizes(),
        "RandomNormal" | "RandomUniform" => of(made::of_shape_attribute),
        "Multinomial" => of(made::multinomial),
        "BlackmanWindow" | "HammingWindow" | "HannWindow" => of(made::signal_window),
        _ => return None,
    })
}

/// The row of an operator whose output always has the shape of its first input.
const KEEPS_SHAPE: Operator = of(elementwise::kept).demanding(demands::kept);

/// The row of an operator with two operands that broadcast; before operator set 7, attributes
/// said where.
const BROADCASTS: Operator = of(elementwise::broadcast).demanding(demands::broadcast);

/// The row of an operator with any number of operands that broadcast.
const BROADCASTS_ALL: Operator = of(elementwise::broadcast_all).demanding(demands::broadcast);

const COMPARES: Operator = BROADCASTS.of_type(BOOL).folding(MOVES);

const BOOL: TypeRule = TypeRule::Always(DataType::Bool);
const INT64: TypeRule = TypeRule::Always(DataType::Int64);

const KEEPS: FoldingRule = folding(FoldingKind::Keeps);
const MOVES: FoldingRule = folding(FoldingKind::Moves);
const CASTS: FoldingRule = folding(FoldingKind::Casts);

/// Evaluated in float32 and float64 alone.
const COMPUTES: FoldingRule =
    folding(FoldingKind::Computes { of_integers: false, rounds_once_of: 0 });

const IN_INTEGERS: FoldingRule =
    folding(FoldingKind::Computes { of_integers: true, rounds_once_of: 0 });

const ROUNDS_ONCE: FoldingRule = COMPUTES.rounding_once_of(usize::MAX);

/// Evaluated in integers, and in 16 bits, too.
const EXACT: FoldingRule = IN_INTEGERS.rounding_once_of(usize::MAX);

const fn of(dims: DimsRule) -> Operator {
    Operator {
        shape: ShapeRule { outputs: 1, dims, integers: None, demand: None },
        element_type: TypeRule::Unknown,
        has_equal_outputs: false,
        reads: InputsRead::Elements,
        kernel: None,
        is_alike_at_all_sizes: false,
        folding: None,
    }
}

/// Whether the first input has channels: tract 0.23.9 takes them for granted, and reads beyond
/// the end of the shape.
fn has_channels(inputs: &[TensorProto]) -> bool {
    rank(inputs, 0) >= 2
}

/// Whether the first input has spatial axes, as many as the kernel; the reason is that of
/// [`has_channels`].
fn is_convolution(inputs: &[TensorProto]) -> bool {
    rank(inputs, 0) >= 3 && rank(inputs, 0) == rank(inputs, 1)
}

fn rank(inputs: &[TensorProto], index: usize) -> usize {
    inputs.get(index).map_or(0, |input| input.dims.len())
}
