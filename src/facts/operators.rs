//! What is known of ONNX's operators: one row each.
//!
//! A row says which shapes and integers a node gives and demands ([`shape_rules`]), of which
//! type its result is, what it reads of its inputs, and how it is evaluated where these are
//! constant. An operator that is not here is one of which nothing is known. What an operator
//! means as linear algebra is not told here but in `ops`.
//!
//! Knows names and rules, and no node.
//!
//! [`shape_rules`]: crate::facts::shape_rules

use crate::facts::estimate::{self, EstimateRule};
use crate::facts::ranges::{self, RangeRule};
use crate::facts::shape_rules::asked::{DemandRule, DimsRule, IntegersRule};
use crate::facts::shape_rules::{
    along, axes, demands, elementwise, integers, made, pieces, products, resize, windows,
};
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;

/// What is known of one operator.
#[derive(Clone, Copy)]
pub struct Operator {
    /// Dimensions and integers of its outputs.
    pub shape: ShapeRule,
    /// Of which type its first output is.
    pub element_type: TypeRule,
    /// Whether all its outputs are of one kind: those of a Split.
    pub has_equal_outputs: bool,
    /// What it reads of its inputs.
    pub reads: InputsRead,
    /// How its second input slides over the first, if it is a kernel.
    pub kernel: Option<KernelUse>,
    /// Whether places that are computed by it from sizes follow from all sizes in one way: not
    /// the smaller of two, nor a remainder.
    pub is_alike_at_all_sizes: bool,
    /// How it is evaluated on constants; `None` if it is not.
    pub folding: Option<FoldingRule>,
}

/// Dimensions and integers of outputs.
#[derive(Clone, Copy)]
pub struct ShapeRule {
    /// Of so many outputs, from the first on, `dims` and `integers` speak.
    pub outputs: usize,
    /// Dimensions of an output.
    pub dims: DimsRule,
    /// Integers that it holds.
    pub integers: Option<IntegersRule>,
    /// What the node demands of an input.
    pub demand: Option<DemandRule>,
}

/// Of which element type the first output is.
#[derive(Debug, Clone, Copy)]
pub enum TypeRule {
    /// That is not told.
    Unknown,
    /// Always of this one.
    Always(DataType),
    /// Of that of the input with this number.
    OfInput(usize),
    /// Of that of any input: all have one.
    OfAnyInput,
    /// Of that which the attribute `to` says.
    OfTo,
    /// Of that which the attribute `output_dtype` says, or of the second input's.
    OfOutputType,
    /// Of that of the attribute `value`, by default float.
    OfValue,
    /// Of that of the tensor which the node holds.
    OfStored,
}

/// What a node reads of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputsRead {
    /// Their elements.
    Elements,
    /// Their sizes alone.
    Sizes,
    /// The elements of the first, and the type of the second.
    ElementsThenType,
}

/// How a kernel `[_, _, k…]` slides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelUse {
    /// Over the input.
    Gathers,
    /// Over the output.
    Scatters,
}

/// How a node is evaluated on constants.
#[derive(Clone, Copy)]
pub struct FoldingRule {
    /// What it does with elements.
    pub kind: FoldingKind,
    /// What evaluating it takes.
    pub estimate: EstimateRule,
    /// Whether its result may be larger than all that it reads.
    pub grows: bool,
    /// Where a result of integers is what ONNX says.
    pub range: RangeRule,
    /// Whether the engine takes it only as `engine::dialect` writes it.
    pub needs_dialect: bool,
    /// Whether the engine takes inputs of these dimensions.
    pub is_taken: fn(&[TensorProto]) -> bool,
}

/// What evaluating a node does with elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoldingKind {
    /// They stay as they are.
    Keeps,
    /// They are moved or compared, which is right in every type.
    Moves,
    /// They are cast to another type.
    Casts,
    /// New ones are computed; in float32 and float64 it is right.
    Computes {
        /// Whether it is right in integers, too: they wrap, or [`FoldingRule::range`] holds
        /// them to their type. Means are not (whether 5/3 is 1 or 2 is for every engine to
        /// say), nor are matrix products, which no exporter computes of integers.
        of_integers: bool,
        /// With at most so many operands it rounds once per element: in 16 bits, every engine
        /// that computes it in float32 and rounds gives the same (24 bits are more than
        /// 2·11 + 2, so rounding twice is rounding once). A sum of several products or terms
        /// is rounded at places of the engine's own.
        rounds_once_of: usize,
    },
}

/// The table.
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
        // Along axes, shapes stay.
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
        "Einsum" => of(products::einsum).folding(COMPUTES.growing(estimate::summed)),
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
        "SequenceAt" => of(elementwise::kept).of_type(FIRST),
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
            .folding(MOVES.growing(estimate::repeated))
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
        "SpaceToDepth" => of(axes::space_to_depth).demanding(demands::of_rank_4).of_type(FIRST),
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

/// Its output has the shape of its first input, for good.
const KEEPS_SHAPE: Operator = of(elementwise::kept).demanding(demands::kept);

/// Two operands that broadcast; where, it was said otherwise before operator set 7.
const BROADCASTS: Operator = of(elementwise::broadcast).demanding(demands::broadcast);

/// Any number of operands that broadcast.
const BROADCASTS_ALL: Operator = of(elementwise::broadcast_all).demanding(demands::broadcast);

const COMPARES: Operator = BROADCASTS.of_type(BOOL).folding(MOVES);

const FIRST: TypeRule = TypeRule::OfInput(0);
const BOOL: TypeRule = TypeRule::Always(DataType::Bool);
const INT64: TypeRule = TypeRule::Always(DataType::Int64);

const KEEPS: FoldingRule = folding(FoldingKind::Keeps);
const MOVES: FoldingRule = folding(FoldingKind::Moves);
const CASTS: FoldingRule = folding(FoldingKind::Casts);

/// In float32 and float64 alone.
const COMPUTES: FoldingRule =
    folding(FoldingKind::Computes { of_integers: false, rounds_once_of: 0 });

const IN_INTEGERS: FoldingRule =
    folding(FoldingKind::Computes { of_integers: true, rounds_once_of: 0 });

const ROUNDS_ONCE: FoldingRule = COMPUTES.rounding_once_of(usize::MAX);

/// In integers, and in 16 bits.
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

impl Operator {
    const fn outputs(self, outputs: usize) -> Self {
        Operator { shape: ShapeRule { outputs, ..self.shape }, ..self }
    }

    const fn with_equal_outputs(self) -> Self {
        Operator { has_equal_outputs: true, ..self.outputs(usize::MAX) }
    }

    const fn holding(self, integers: IntegersRule) -> Self {
        Operator { shape: ShapeRule { integers: Some(integers), ..self.shape }, ..self }
    }

    const fn demanding(self, demand: DemandRule) -> Self {
        Operator { shape: ShapeRule { demand: Some(demand), ..self.shape }, ..self }
    }

    const fn of_type(self, element_type: TypeRule) -> Self {
        Operator { element_type, ..self }
    }

    const fn reading(self, reads: InputsRead) -> Self {
        Operator { reads, ..self }
    }

    const fn sliding(self, kernel: KernelUse) -> Self {
        Operator { kernel: Some(kernel), ..self }
    }

    const fn alike_at_all_sizes(self) -> Self {
        Operator { is_alike_at_all_sizes: true, ..self }
    }

    /// What is evaluated is of its first operand's type, if nothing else is said.
    const fn folding(self, rule: FoldingRule) -> Self {
        let element_type = match self.element_type {
            TypeRule::Unknown => FIRST,
            known => known,
        };
        Operator { folding: Some(rule), element_type, ..self }
    }
}

const fn folding(kind: FoldingKind) -> FoldingRule {
    FoldingRule {
        kind,
        estimate: estimate::of_elements,
        grows: false,
        range: ranges::any,
        needs_dialect: false,
        is_taken: are_taken,
    }
}

impl FoldingRule {
    const fn rounding_once_of(self, operands: usize) -> Self {
        match self.kind {
            FoldingKind::Computes { of_integers, .. } => FoldingRule {
                kind: FoldingKind::Computes { of_integers, rounds_once_of: operands },
                ..self
            },
            _ => self,
        }
    }

    const fn taking(self, estimate: EstimateRule) -> Self {
        FoldingRule { estimate, ..self }
    }

    const fn growing(self, estimate: EstimateRule) -> Self {
        FoldingRule { estimate, grows: true, ..self }
    }

    const fn within(self, range: RangeRule) -> Self {
        FoldingRule { range, ..self }
    }

    const fn in_dialect(self) -> Self {
        FoldingRule { needs_dialect: true, ..self }
    }

    const fn taken_if(self, is_taken: fn(&[TensorProto]) -> bool) -> Self {
        FoldingRule { is_taken, ..self }
    }
}

fn are_taken(_: &[TensorProto]) -> bool {
    true
}

/// tract 0.23.9 takes channels for granted, and reads beyond the end of the shape.
fn has_channels(inputs: &[TensorProto]) -> bool {
    rank(inputs, 0) >= 2
}

/// As [`has_channels`], of spatial axes.
fn is_convolution(inputs: &[TensorProto]) -> bool {
    rank(inputs, 0) >= 3 && rank(inputs, 0) == rank(inputs, 1)
}

fn rank(inputs: &[TensorProto], index: usize) -> usize {
    inputs.get(index).map_or(0, |input| input.dims.len())
}
