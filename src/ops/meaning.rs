//! What a node computes: another name of a tensor, a signed sum, joined tensors, parts of a
//! tensor, an affine map of one tensor, or something else, with the reason.
//!
//! Weights stay where they are stored until they are needed. Knows tensors by their ids, and no
//! operator by its name.

use std::ops::{Mul, Neg};
use std::sync::Arc;

use ndarray::Array1;

use crate::affine::{
    Affine, AxisOrder, Channels, ConvKind, Geometry, Linear, Macs, Part, Squares, View, Window,
};
use crate::facts::constants::Constants;
use crate::facts::kernels::KernelLayout;
use crate::onnx::float::Float;
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::tensor;
use crate::refusal::NotLinear;

/// The sign of a summand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sign {
    /// Added.
    Plus,
    /// Subtracted.
    Minus,
}

impl Sign {
    /// Returns the sign of the second operand: minus if `is_difference`.
    pub fn of_difference(is_difference: bool) -> Self {
        if is_difference { Sign::Minus } else { Sign::Plus }
    }
}

impl Mul for Sign {
    type Output = Sign;

    fn mul(self, other: Sign) -> Sign {
        Sign::of_difference(self != other)
    }
}

impl Neg for Sign {
    type Output = Sign;

    fn neg(self) -> Sign {
        Sign::of_difference(self == Sign::Plus)
    }
}

/// What a node computes.
#[derive(Debug, Clone)]
pub enum Meaning {
    /// The same tensor under another name.
    Alias(ValueId),
    /// A signed sum of tensors.
    Sum(Vec<SumOperand>),
    /// Tensors joined along one axis, each with the part of the whole that it is.
    Joined(Vec<(Part, ValueId)>),
    /// A tensor that is split along one axis into one part per output.
    Parted(ValueId, Vec<Part>),
    /// An affine map of one tensor.
    Linear(ValueId, LinearOp),
    /// Something else, with the reason why it is none of the above.
    Opaque(NotLinear),
}

/// An operand of a sum.
#[derive(Debug, Clone)]
pub struct SumOperand {
    /// Whether it is added or subtracted.
    pub sign: Sign,
    /// The tensor.
    pub operand: ValueId,
    /// The map that is applied to the tensor before it is added: it takes the constants of the
    /// sum, or is a share of a mean.
    pub map: Option<Box<LinearOp>>,
}

impl SumOperand {
    /// Returns an operand that is added or subtracted as it is.
    pub fn of(sign: Sign, operand: ValueId) -> Self {
        SumOperand { sign, operand, map: None }
    }
}

impl Meaning {
    /// Returns the tensors of which the meaning is a function.
    pub fn operands(&self) -> Vec<ValueId> {
        match self {
            Meaning::Alias(operand) | Meaning::Parted(operand, _) | Meaning::Linear(operand, _) => {
                vec![*operand]
            }
            Meaning::Sum(summands) => summands.iter().map(|summand| summand.operand).collect(),
            Meaning::Joined(operands) => operands.iter().map(|&(_, operand)| operand).collect(),
            Meaning::Opaque(_) => Vec::new(),
        }
    }
}

/// An affine map; the weights of a convolution or product are not read yet.
#[derive(Debug, Clone)]
pub enum LinearOp {
    /// Conv, ConvTranspose, Gemm or MatMul.
    Conv {
        /// The kernel's tensor.
        kernel: ValueId,
        /// The order in which the kernel is stored.
        layout: KernelLayout,
        /// The factor of the kernel's numbers; not zero.
        factor: f64,
        /// The type of the kernel, which is also that of the input and output.
        float: Float,
        /// The bias; empty if there is none.
        bias: Vec<f64>,
        /// The shape of the map.
        geometry: Geometry,
    },
    /// A scale and a shift per channel.
    Diagonal {
        /// The scale of each channel.
        scale: Vec<f64>,
        /// The shift of each channel.
        shift: Vec<f64>,
        /// Where the channels are.
        order: AxisOrder,
    },
    /// The same kernel, all of whose weights are equal, on every channel: pads, crops, means.
    Filter {
        /// One window per spatial axis, or none.
        windows: Vec<Window>,
        /// Which axes are spatial.
        order: AxisOrder,
        /// The weight of every tap.
        weight: f64,
        /// The number that is added.
        shift: f64,
        /// The same node as a view, if it makes means.
        mean: Option<ViewNode>,
    },
    /// A map, surrounded by a border of what it gives on zeros: its shift.
    Bordered {
        /// The map.
        map: Box<LinearOp>,
        /// The output of the map, around which the border is.
        inner: ValueId,
        /// The border, as one window per spatial axis.
        windows: Vec<Window>,
        /// How far the border's values are from the shift, per channel; empty if they differ by
        /// rounding only.
        difference: Vec<f64>,
        /// The shape of the map and the border together.
        geometry: Geometry,
    },
    /// Some of the channels, in any order.
    Picked {
        /// The input channel of each output channel.
        picks: Arc<[usize]>,
        /// The number of input channels.
        of: usize,
        /// Where the channels are.
        order: AxisOrder,
    },
    /// Axis `i` of the output is axis `axes[i]` of the input.
    Transpose {
        /// A permutation.
        axes: AxisOrder,
    },
    /// The same elements with other axes.
    View(ViewNode),
}

/// A node that is a view, without the tensors that it reads and makes: equal ones make the same
/// of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewNode {
    /// The operator and its attributes.
    pub proto: Arc<NodeProto>,
    /// The operands besides the tensor; `None` where one is left out.
    pub told: Vec<Option<ViewOperand>>,
    /// What the node does with axes.
    pub view: Arc<View>,
    /// The kernel that the node is equal to, if there is one.
    pub kernel: Option<ViewKernel>,
}

/// A view as a kernel.
#[derive(Debug, Clone)]
pub enum ViewKernel {
    /// It makes means of all elements of these windows.
    Means(Arc<[Window]>),
    /// It makes channels of squares of what it reads. If it is the last of several views that do
    /// so together, the squares are those of what the first one reads.
    Squares(Squares, Option<FirstOfViews>),
}

/// What the first and the last of several views in a row read.
#[derive(Debug, Clone, Copy)]
pub struct FirstOfViews {
    /// What the first one reads.
    pub root: ValueId,
    /// What the last one reads.
    pub last: ValueId,
}

/// Two views that do the same are equal, whatever they read.
impl PartialEq for ViewKernel {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (ViewKernel::Means(one), ViewKernel::Means(other)) => one == other,
            (ViewKernel::Squares(one, _), ViewKernel::Squares(other, _)) => one == other,
            _ => false,
        }
    }
}

/// An operand of a view besides the tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum ViewOperand {
    /// A shape, axes, sizes.
    Integers(Vec<i64>),
    /// Factors, in float32.
    Factors(Vec<f64>),
}

impl ViewOperand {
    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        match self {
            ViewOperand::Integers(list) => list.is_empty(),
            ViewOperand::Factors(factors) => factors.is_empty(),
        }
    }

    /// Returns the list as a tensor.
    pub fn tensor(&self, name: &str) -> TensorProto {
        match self {
            ViewOperand::Integers(list) => tensor::from_integers(name, list),
            ViewOperand::Factors(factors) => {
                let factors = Array1::from(factors.clone()).into_dyn();
                tensor::from_floats(name, &factors, Float::F32)
            }
        }
    }
}

impl LinearOp {
    /// Returns a map that pads or crops.
    pub fn frame(windows: Vec<Window>, order: AxisOrder) -> Self {
        LinearOp::Filter { windows, order, weight: 1.0, shift: 0.0, mean: None }
    }

    /// Returns the shape of the map.
    pub fn geometry(&self) -> Geometry {
        match self {
            LinearOp::Conv { geometry, .. } | LinearOp::Bordered { geometry, .. } => {
                geometry.clone()
            }
            LinearOp::Diagonal { scale, shift, order } => Geometry {
                channels: Some(Channels::diagonal(scale.len())),
                shifted: shift.iter().any(|&value| value != 0.0),
                ..Geometry::identity().within(order)
            },
            LinearOp::Filter { windows, order, shift, .. } => Geometry {
                windows: windows.clone(),
                shifted: *shift != 0.0,
                ..Geometry::identity().within(order)
            },
            LinearOp::Picked { picks, of, order } => {
                let channels = Channels { inputs: *of, outputs: picks.len(), groups: 1 };
                Geometry { channels: Some(channels), ..Geometry::identity() }.within(order)
            }
            LinearOp::Transpose { axes } => Geometry::transposition(axes.clone()),
            LinearOp::View(_) => Geometry::identity(),
        }
    }

    /// Returns the multiply-adds of the node as it stands, per output position.
    pub fn macs(&self) -> Macs {
        match self {
            LinearOp::Conv { geometry, .. } => geometry.macs(),
            // A node that only shifts, pads, crops or changes the sign multiplies nothing.
            LinearOp::Diagonal { scale, .. } if scale.iter().all(|&scale| scale.abs() == 1.0) => {
                Macs::default()
            }
            LinearOp::Filter { weight, .. } if weight.abs() == 1.0 => Macs::default(),
            LinearOp::Diagonal { scale, .. } => Macs::each(scale.len() as f64),
            // Counted per channel, of which there is at least one.
            LinearOp::Filter { .. } => self.geometry().macs(),
            LinearOp::Picked { .. }
            | LinearOp::Transpose { .. }
            | LinearOp::Bordered { .. }
            | LinearOp::View(_) => Macs::default(),
        }
    }

    /// Whether the map scales or shifts every element where it stands.
    pub fn is_pointwise(&self) -> bool {
        match self {
            LinearOp::Diagonal { .. } => true,
            LinearOp::Filter { windows, .. } => windows.is_empty(),
            LinearOp::Conv { .. }
            | LinearOp::Bordered { .. }
            | LinearOp::Picked { .. }
            | LinearOp::Transpose { .. }
            | LinearOp::View(_) => false,
        }
    }

    /// Returns how many more numbers a bias of `channels` channels has than the scale or shift,
    /// each of whose numbers shifts several channels.
    pub fn repeated_shifts(&self, channels: usize) -> usize {
        match self {
            LinearOp::Filter { shift, .. } if *shift != 0.0 => channels,
            LinearOp::Diagonal { shift, .. } if shift.iter().any(|&shift| shift != 0.0) => {
                channels.saturating_sub(shift.len())
            }
            _ => 0,
        }
    }

    /// Returns what is added at the end: one number, or one per channel; empty if nothing is.
    pub fn shift(&self) -> &[f64] {
        match self {
            LinearOp::Conv { bias, .. } => bias,
            LinearOp::Diagonal { shift, .. } => shift,
            LinearOp::Filter { shift, .. } => std::slice::from_ref(shift),
            LinearOp::Bordered { map, .. } => map.shift(),
            LinearOp::Picked { .. } | LinearOp::Transpose { .. } | LinearOp::View(_) => &[],
        }
    }

    /// Returns the map with its weights, or `None` if the engine could not evaluate the kernel.
    ///
    /// # Errors
    /// Returns an error if a convolution's kernel cannot be read.
    pub fn affine(&self, constants: &Constants) -> Result<Option<Affine>, Invalid> {
        let Geometry { input, output, .. } = self.geometry();
        let affine = match self {
            LinearOp::Conv { kernel, layout, factor, bias, geometry, .. } => {
                let groups = geometry.channels.map_or(1, |channels| channels.groups);
                let windows = geometry.windows.clone();
                let values = || Ok::<_, Invalid>(constants.floats(*kernel)?.map(|(v, _)| v));
                let affine = match (geometry.kind, layout) {
                    // The kernel stays where it is stored.
                    (ConvKind::Conv, KernelLayout::OutputsFirst) => {
                        let dims = constants.dims(*kernel)?.unwrap_or_default();
                        let &[outputs, width, ..] = dims.as_slice() else { return Ok(None) };
                        constants.numbers(*kernel)?.map(|weights| {
                            let shape = [outputs, width];
                            Affine::stored_conv(weights, shape, bias, windows, groups)
                        })
                    }
                    (ConvKind::Conv, KernelLayout::InputsFirst) => values()?
                        .map(|weights| Affine::gathered_conv(weights, bias, windows, groups)),
                    (ConvKind::ConvTranspose, _) => values()?
                        .map(|weights| Affine::transposed_conv(weights, bias, windows, groups)),
                    (ConvKind::MatMul, KernelLayout::OutputsFirst) => {
                        values()?.map(|weights| Affine::product(weights, bias, windows.len()))
                    }
                    (ConvKind::MatMul, KernelLayout::InputsFirst) => values()?.map(|weights| {
                        Affine::product(weights.reversed_axes(), bias, windows.len())
                    }),
                };
                let Some(affine) = affine else { return Ok(None) };
                if *factor == 1.0 { affine } else { affine.with_factor(*factor) }
            }
            LinearOp::Diagonal { scale, shift, .. } => Affine::diagonal(scale, shift),
            LinearOp::Filter { windows, weight, shift, .. } => {
                Affine::filter(windows.clone(), *weight, *shift)
            }
            // b + pad(L(x) − b): zero padding around a map without its shift.
            LinearOp::Bordered { map, windows, .. } => {
                let Some(map) = map.affine(constants)? else { return Ok(None) };
                let shift = map.bias().to_vec();
                let frame = Affine::filter(windows.clone(), 1.0, 0.0);
                let Ok(framed) = frame.after(&map.unshifted()) else { return Ok(None) };
                framed.shifted(&shift)
            }
            LinearOp::Picked { picks, of, .. } => Affine::picking(Arc::clone(picks), *of),
            LinearOp::Transpose { .. } | LinearOp::View(_) => Affine::identity(),
        };
        Ok(Some(affine.between(input, output)))
    }
}
