//! What a row of the table of operators says, and how a row is put together.
//!
//! Knows the kinds of rules; knows no operator by its name.

use crate::facts::estimate::{self, EstimateRule};
use crate::facts::ranges::{self, RangeRule};
use crate::facts::shape_rules::asked::{DemandRule, DimsRule, IntegersRule};
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;

/// What is known of one operator.
#[derive(Clone, Copy)]
pub struct Operator {
    /// The rules for the dimensions and integers of its outputs.
    pub shape: ShapeRule,
    /// The rule for the element type of its first output.
    pub element_type: TypeRule,
    /// Whether all its outputs are of one kind, as those of a Split are.
    pub has_equal_outputs: bool,
    /// What it reads of its inputs.
    pub reads: InputsRead,
    /// How its second input slides over the first, if it is a kernel.
    pub kernel: Option<KernelUse>,
    /// Whether places that it computes from sizes follow in one way from all sizes: not so the
    /// smaller of two sizes, or a remainder.
    pub is_alike_at_all_sizes: bool,
    /// How it is evaluated on constants; `None` if it is not.
    pub folding: Option<FoldingRule>,
}

/// The rules for the dimensions and integers of outputs.
#[derive(Clone, Copy)]
pub struct ShapeRule {
    /// How many outputs, from the first on, `dims` and `integers` apply to.
    pub outputs: usize,
    /// Dimensions of an output.
    pub dims: DimsRule,
    /// Integers that an output holds.
    pub integers: Option<IntegersRule>,
    /// What the node demands of an input.
    pub demand: Option<DemandRule>,
}

/// The rule that says which element type the first output has.
#[derive(Debug, Clone, Copy)]
pub enum TypeRule {
    /// The type is not told.
    Unknown,
    /// Always this one.
    Always(DataType),
    /// The type of the input with this number.
    OfInput(usize),
    /// The type of any input: all have the same.
    OfAnyInput,
    /// What the attribute `to` says.
    OfTo,
    /// What the attribute `output_dtype` says, or the type of the second input.
    OfOutputType,
    /// The type of the attribute `value`, by default float.
    OfValue,
    /// The type of the tensor that the node holds.
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

/// How a kernel of dimensions `[_, _, k…]` slides.
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
    /// The rule that estimates what evaluating it takes.
    pub estimate: EstimateRule,
    /// Whether its result may be larger than all that it reads.
    pub grows: bool,
    /// The rule that says where a result of integers is what ONNX says.
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
    /// New elements are computed; in float32 and float64 the result is right.
    Computes {
        /// Whether it is right in integers, too: they wrap, or [`FoldingRule::range`] holds them
        /// to their type. Means are not right (whether 5/3 is 1 or 2 is for every engine to
        /// say), nor are matrix products, which no exporter computes of integers.
        of_integers: bool,
        /// With at most this many operands it rounds once per element: in 16 bits, every engine
        /// that computes it in float32 and rounds gives the same (24 bits are more than 2·11 +
        /// 2, so rounding twice is rounding once). A sum of several products or terms is rounded
        /// at places of the engine's own.
        rounds_once_of: usize,
    },
}

impl Operator {
    pub(super) const fn outputs(self, outputs: usize) -> Self {
        Operator { shape: ShapeRule { outputs, ..self.shape }, ..self }
    }

    pub(super) const fn with_equal_outputs(self) -> Self {
        Operator { has_equal_outputs: true, ..self.outputs(usize::MAX) }
    }

    pub(super) const fn holding(self, integers: IntegersRule) -> Self {
        Operator { shape: ShapeRule { integers: Some(integers), ..self.shape }, ..self }
    }

    pub(super) const fn demanding(self, demand: DemandRule) -> Self {
        Operator { shape: ShapeRule { demand: Some(demand), ..self.shape }, ..self }
    }

    pub(super) const fn of_type(self, element_type: TypeRule) -> Self {
        Operator { element_type, ..self }
    }

    pub(super) const fn reading(self, reads: InputsRead) -> Self {
        Operator { reads, ..self }
    }

    pub(super) const fn sliding(self, kernel: KernelUse) -> Self {
        Operator { kernel: Some(kernel), ..self }
    }

    pub(super) const fn alike_at_all_sizes(self) -> Self {
        Operator { is_alike_at_all_sizes: true, ..self }
    }

    /// Sets how the operator is evaluated. The result is of the first operand's type, if nothing
    /// else is said.
    pub(super) const fn folding(self, rule: FoldingRule) -> Self {
        let element_type = match self.element_type {
            TypeRule::Unknown => FIRST,
            known => known,
        };
        Operator { folding: Some(rule), element_type, ..self }
    }
}

impl FoldingRule {
    pub(super) const fn rounding_once_of(self, operands: usize) -> Self {
        match self.kind {
            FoldingKind::Computes { of_integers, .. } => FoldingRule {
                kind: FoldingKind::Computes { of_integers, rounds_once_of: operands },
                ..self
            },
            _ => self,
        }
    }

    pub(super) const fn taking(self, estimate: EstimateRule) -> Self {
        FoldingRule { estimate, ..self }
    }

    pub(super) const fn growing(self, estimate: EstimateRule) -> Self {
        FoldingRule { estimate, grows: true, ..self }
    }

    pub(super) const fn within(self, range: RangeRule) -> Self {
        FoldingRule { range, ..self }
    }

    pub(super) const fn in_dialect(self) -> Self {
        FoldingRule { needs_dialect: true, ..self }
    }

    pub(super) const fn taken_if(self, is_taken: fn(&[TensorProto]) -> bool) -> Self {
        FoldingRule { is_taken, ..self }
    }
}

pub(super) const fn folding(kind: FoldingKind) -> FoldingRule {
    FoldingRule {
        kind,
        estimate: estimate::of_elements,
        grows: false,
        range: ranges::any,
        needs_dialect: false,
        is_taken: are_taken,
    }
}

fn are_taken(_: &[TensorProto]) -> bool {
    true
}

pub(super) const FIRST: TypeRule = TypeRule::OfInput(0);
