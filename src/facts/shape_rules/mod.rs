//! The shape rules, one row per operator.
//!
//! A rule holds for every valid node: what it says is true whatever else the graph holds.
//! Where it does not know, it says nothing; an operator that is not in the table is one of
//! which nothing is known. `tests/shapes.rs` holds every row to ONNX's own shapes.

mod demands;
mod integers;
mod layout;
mod products;
mod windows;

use crate::onnx::node::Node;

/// Dimensions of a tensor; `None` where a size is not known. Of a sequence: those that all
/// its tensors have.
pub type Dims = Vec<Option<i64>>;

/// Integers that a tensor holds, in its order; `None` where one is not known.
pub type Integers = Vec<Option<i64>>;

/// What is known of a node's operands.
pub trait Operands {
    /// Dimensions of input number `input`; `None` if its rank is not known or it is left out.
    fn dims(&self, input: usize) -> Option<Dims>;

    /// The integers that a short list (or scalar) input of type int64, int32 or bool holds;
    /// `None` if not known; single elements may be unknown.
    fn integers(&self, input: usize) -> Option<Integers>;

    /// The float32 numbers that a short list holds: the factors of a Resize.
    fn factors(&self, input: usize) -> Option<Vec<f32>> {
        let _ = input;
        None
    }

    /// Dimensions that output number `output` must have for other reasons than this node:
    /// what those that read it demand. [`input_dims`] alone asks for it.
    fn demanded(&self, output: usize) -> Option<Dims> {
        let _ = output;
        None
    }
}

/// No tensor of a network has more axes.
pub const MAX_RANK: usize = 16;

/// Lists of integers that are not longer are followed, element by element.
pub const MAX_INTEGERS: usize = 64;

/// Dimensions of output number `output` of a valid `node`.
pub fn output_dims(
    node: &Node,
    opset: i64,
    output: usize,
    operands: &dyn Operands,
) -> Option<Dims> {
    let rule = rule(node.standard_op()?)?;
    let asked = Asked { node, opset, output, operands };
    let dims = if output < rule.outputs { (rule.dims)(&asked)? } else { return None };
    is_possible(&dims).then_some(dims)
}

/// The integers that output number `output` of a valid `node` holds.
pub fn output_integers(
    node: &Node,
    opset: i64,
    output: usize,
    operands: &dyn Operands,
) -> Option<Integers> {
    let rule = rule(node.standard_op()?)?;
    let asked = Asked { node, opset, output, operands };
    let integers = if output < rule.outputs { (rule.integers?)(&asked)? } else { return None };
    (integers.len() <= MAX_INTEGERS).then_some(integers)
}

/// What a valid model must give as input number `input` of `node`; `None` if anything may
/// stand there.
pub fn input_dims(node: &Node, opset: i64, input: usize, operands: &dyn Operands) -> Option<Dims> {
    let rule = rule(node.standard_op()?)?;
    node.input(input)?;
    let asked = Asked { node, opset, output: 0, operands };
    let dims = (rule.demand?)(&asked, input)?;
    is_possible(&dims).then_some(dims)
}

/// What follows of a tensor from two sources, of which each is right where it says
/// something; `None` if they contradict each other.
pub fn agreed(left: &[Option<i64>], right: &[Option<i64>]) -> Option<Dims> {
    let agree = |(&left, &right): (&Option<i64>, &Option<i64>)| match (left, right) {
        (Some(left), Some(right)) if left != right => None,
        _ => Some(left.or(right)),
    };
    if left.len() == right.len() { left.iter().zip(right).map(agree).collect() } else { None }
}

fn is_possible(dims: &[Option<i64>]) -> bool {
    dims.len() <= MAX_RANK && dims.iter().flatten().all(|&size| size >= 0)
}

/// Dimensions of the output that is asked for.
type DimsRule = fn(&Asked) -> Option<Dims>;

/// Integers that it holds.
type IntegersRule = fn(&Asked) -> Option<Integers>;

/// Dimensions that an input must have.
type DemandRule = fn(&Asked, usize) -> Option<Dims>;

/// What is known of one operator.
#[derive(Clone, Copy)]
struct ShapeRule {
    /// Of so many outputs, from the first on, `dims` and `integers` speak.
    outputs: usize,
    dims: DimsRule,
    integers: Option<IntegersRule>,
    demand: Option<DemandRule>,
}

const fn of(dims: DimsRule) -> ShapeRule {
    ShapeRule { outputs: 1, dims, integers: None, demand: None }
}

impl ShapeRule {
    const fn outputs(self, outputs: usize) -> Self {
        ShapeRule { outputs, ..self }
    }

    const fn holding(self, integers: IntegersRule) -> Self {
        ShapeRule { integers: Some(integers), ..self }
    }

    const fn demanding(self, demand: DemandRule) -> Self {
        ShapeRule { demand: Some(demand), ..self }
    }
}

/// Its output has the shape of its first input, for good.
const KEEPS_SHAPE: ShapeRule = of(layout::kept).demanding(demands::kept);

/// Operands that broadcast.
const BROADCASTS: ShapeRule = of(layout::broadcast).demanding(demands::broadcast);

/// The table.
fn rule(op: &str) -> Option<ShapeRule> {
    Some(match op {
        // Element by element.
        "Abs" => KEEPS_SHAPE.holding(integers::absolute),
        "Neg" => KEEPS_SHAPE.holding(integers::negated),
        "Not" => KEEPS_SHAPE.holding(integers::not),
        "Identity" => KEEPS_SHAPE.holding(integers::kept),
        "Cast" => KEEPS_SHAPE.holding(integers::cast),
        "Acos" | "Acosh" | "Asin" | "Asinh" | "Atan" | "Atanh" | "Bernoulli" | "BitwiseNot"
        | "CastLike" | "Ceil" | "Celu" | "Clip" | "Cos" | "Cosh" | "DequantizeLinear" | "Elu"
        | "Erf" | "Exp" | "Floor" | "Gelu" | "HardSigmoid" | "HardSwish" | "IsInf" | "IsNaN"
        | "LeakyRelu" | "Log" | "Mish" | "PRelu" | "QuantizeLinear" | "RandomNormalLike"
        | "RandomUniformLike" | "Reciprocal" | "Relu" | "Round" | "ScaledTanh" | "Selu"
        | "Shrink" | "Sigmoid" | "Sign" | "Sin" | "Sinh" | "Softplus" | "Softsign" | "Sqrt"
        | "Swish" | "Tan" | "Tanh" | "ThresholdedRelu" => KEEPS_SHAPE,
        "Dropout" => KEEPS_SHAPE.outputs(2),
        "Add" => BROADCASTS.holding(integers::sum),
        "Sub" => BROADCASTS.holding(integers::difference),
        "Mul" => BROADCASTS.holding(integers::product),
        "Div" => BROADCASTS.holding(integers::quotient),
        "Mod" => BROADCASTS.holding(integers::remainder),
        "Max" => BROADCASTS.holding(integers::largest),
        "Min" => BROADCASTS.holding(integers::smallest),
        "Sum" => BROADCASTS,
        "Equal" => BROADCASTS.holding(integers::equal),
        "Greater" => BROADCASTS.holding(integers::greater),
        "GreaterOrEqual" => BROADCASTS.holding(integers::greater_or_equal),
        "Less" => BROADCASTS.holding(integers::less),
        "LessOrEqual" => BROADCASTS.holding(integers::less_or_equal),
        "And" => BROADCASTS.holding(integers::and),
        "Or" => BROADCASTS.holding(integers::or),
        "Where" => BROADCASTS.holding(integers::chosen),
        "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "Mean" | "Pow" | "Xor" => {
            BROADCASTS
        }
        // Along axes, shapes stay.
        "CumProd"
        | "CumSum"
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
        | "ScatterElements"
        | "ScatterND"
        | "Softmax"
        | "TensorScatter"
        | "Trilu" => KEEPS_SHAPE,
        "BatchNormalization" => of(products::batch_norm).outputs(5).demanding(demands::of_channels),
        "InstanceNormalization" => of(products::instance_norm).demanding(demands::of_channels),
        "LayerNormalization" => of(layout::layer_norm).outputs(3).demanding(demands::kept),
        "DynamicQuantizeLinear" => of(layout::quantized).outputs(3).demanding(demands::kept),
        // Windows.
        "Conv" | "ConvInteger" | "DeformConv" => of(windows::conv).demanding(demands::conv),
        "QLinearConv" => of(windows::quantized_conv),
        "ConvTranspose" => of(windows::conv_transpose).demanding(demands::conv_transpose),
        "AveragePool" | "LpPool" => of(windows::pool).demanding(demands::pool),
        "MaxPool" => of(windows::pool).outputs(2).demanding(demands::pool),
        "MaxUnpool" => of(windows::max_unpool).demanding(demands::pool),
        "GlobalAveragePool" | "GlobalLpPool" | "GlobalMaxPool" => {
            of(windows::global_pool).demanding(demands::global_pool)
        }
        "MaxRoiPool" => of(windows::max_roi_pool),
        "RoiAlign" => of(windows::roi_align),
        "GridSample" => of(windows::grid_sample),
        // Products and recurrent networks.
        "Gemm" => of(products::gemm).demanding(demands::gemm),
        "MatMul" | "MatMulInteger" => of(products::matmul).demanding(demands::matmul),
        "QLinearMatMul" => of(products::quantized_matmul),
        "Einsum" => of(products::einsum),
        "Det" => of(products::det),
        "GRU" | "RNN" => of(products::recurrent).outputs(2).demanding(demands::recurrent),
        "LSTM" => of(products::recurrent).outputs(3).demanding(demands::recurrent),
        // Where elements stand.
        "Pad" => of(layout::pad).demanding(demands::pad),
        "Slice" => of(layout::slice).holding(integers::slice).demanding(demands::slice),
        "Concat" => of(layout::concat).holding(integers::concat).demanding(demands::concat),
        "Split" => of(layout::split).outputs(usize::MAX).holding(integers::split),
        "SplitToSequence" => of(layout::split_to_sequence),
        "SequenceAt" => of(layout::kept),
        "Transpose" => {
            of(layout::transpose).holding(integers::transpose).demanding(demands::transpose)
        }
        "Flatten" => of(layout::flatten).holding(integers::kept),
        "Reshape" => of(layout::reshape).holding(integers::kept),
        "Squeeze" => of(layout::squeeze).holding(integers::kept).demanding(demands::squeeze),
        "Unsqueeze" => of(layout::unsqueeze).holding(integers::kept).demanding(demands::unsqueeze),
        "Expand" => of(layout::expand).holding(integers::expand),
        "Tile" => of(layout::tile).holding(integers::tile),
        "Gather" => of(layout::gather).holding(integers::gather),
        "GatherElements" => of(layout::gather_elements),
        "GatherND" => of(layout::gather_nd),
        "Compress" => of(layout::compress),
        "OneHot" => of(layout::one_hot),
        "TopK" => of(layout::top_k).outputs(2),
        "DepthToSpace" => of(layout::depth_to_space).demanding(demands::of_rank_4),
        "SpaceToDepth" => of(layout::space_to_depth).demanding(demands::of_rank_4),
        "Resize" => of(layout::resize),
        "Upsample" => of(layout::upsample),
        "NonZero" => of(layout::non_zero),
        "NonMaxSuppression" => of(layout::non_max_suppression),
        // Over axes.
        "ReduceMax" => of(layout::reduce).holding(integers::largest_of_all),
        "ReduceMin" => of(layout::reduce).holding(integers::smallest_of_all),
        "ReduceProd" => of(layout::reduce).holding(integers::product_of_all),
        "ReduceSum" => of(layout::reduce).holding(integers::sum_of_all),
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMean"
        | "ReduceSumSquare" => of(layout::reduce),
        "ArgMax" | "ArgMin" => of(layout::arg_reduce),
        // Made from shapes and numbers.
        "Constant" => of(layout::constant).holding(integers::constant),
        "ConstantOfShape" => of(layout::constant_of_shape).holding(integers::constant_of_shape),
        "Shape" => of(layout::shape).holding(integers::shape),
        "Size" => of(layout::scalar).holding(integers::size),
        "Range" => of(layout::range).holding(integers::range),
        "RandomNormal" | "RandomUniform" => of(layout::of_shape_attribute),
        "Multinomial" => of(layout::multinomial),
        "BlackmanWindow" | "HammingWindow" | "HannWindow" => of(layout::signal_window),
        _ => return None,
    })
}

/// What a rule is asked: about which output of which node, and what is known.
struct Asked<'a> {
    pub node: &'a Node,
    pub opset: i64,
    pub output: usize,
    operands: &'a dyn Operands,
}

impl Asked<'_> {
    /// The same, about another output.
    pub fn about(&self, output: usize) -> Self {
        Asked { output, ..*self }
    }

    pub fn dims(&self, input: usize) -> Option<Dims> {
        self.node.input(input)?;
        self.operands.dims(input)
    }

    /// Of all inputs. Whoever answers hears at once of all that is asked.
    pub fn all_dims(&self) -> Vec<Option<Dims>> {
        (0..self.inputs()).map(|input| self.dims(input)).collect()
    }

    pub fn integers(&self, input: usize) -> Option<Integers> {
        self.node.input(input)?;
        self.operands.integers(input)
    }

    pub fn factors(&self, input: usize) -> Option<Vec<f32>> {
        self.node.input(input)?;
        self.operands.factors(input).filter(|factors| !factors.is_empty())
    }

    pub fn demanded(&self, output: usize) -> Option<Dims> {
        self.node.outputs.get(output).copied().flatten()?;
        self.operands.demanded(output)
    }

    pub fn has(&self, input: usize) -> bool {
        self.node.input(input).is_some()
    }

    pub fn inputs(&self) -> usize {
        self.node.inputs.len()
    }

    /// A list that old operator sets have as an attribute and new ones as an input.
    pub fn list(&self, name: &str, input: usize) -> List {
        match self.node.ints(name) {
            Some(list) => List::Known(list.iter().copied().map(Some).collect()),
            None if !self.has(input) => List::LeftOut,
            None => match self.integers(input) {
                Some(list) => List::Known(list),
                None => List::OfLength(self.length(input)),
            },
        }
    }

    /// How many elements a list has that is input number `input`.
    pub fn length(&self, input: usize) -> Option<usize> {
        match self.dims(input)?.as_slice() {
            [length] => usize::try_from((*length)?).ok(),
            _ => None,
        }
    }

    /// Attribute `axis`, from the front, of a tensor with `rank` axes.
    pub fn axis(&self, default: i64, rank: usize) -> Option<usize> {
        from_front(self.node.int("axis", default), rank)
    }

    /// A word that is an attribute.
    pub fn word(&self, name: &str) -> &[u8] {
        self.node.attribute(name).map_or(&b""[..], |attribute| attribute.s())
    }
}

/// A list of integers that tells a node what to do.
enum List {
    /// There is none.
    LeftOut,
    /// It is not known; maybe its length is.
    OfLength(Option<usize>),
    /// It is known, maybe but for single elements.
    Known(Integers),
}

impl List {
    /// All elements, if all are known.
    pub fn whole(&self) -> Option<Vec<i64>> {
        match self {
            List::Known(list) => list.iter().copied().collect(),
            _ => None,
        }
    }

    /// How many elements it has.
    pub fn length(&self) -> Option<usize> {
        match self {
            List::LeftOut => None,
            List::OfLength(length) => *length,
            List::Known(list) => Some(list.len()),
        }
    }
}

/// So many dimensions of unknown size; `None` if no tensor of a network has so many.
fn open(rank: usize) -> Option<Dims> {
    (rank <= MAX_RANK).then(|| vec![None; rank])
}

/// An axis that may be counted from the end, from the front; the axes of a tensor with
/// `rank` axes.
fn from_front(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// How many elements these sizes make; nothing, where one of them is 0, whatever the others.
fn product(sizes: &[Option<i64>]) -> Option<i64> {
    if sizes.contains(&Some(0)) {
        return Some(0);
    }
    sizes.iter().try_fold(1i64, |product, &size| product.checked_mul(size?))
}
