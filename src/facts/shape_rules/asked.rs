//! What a shape rule is asked, and what it may look at: one node, and what is known of its
//! operands, whether that is true of a file or only supposed.
//!
//! Sizes count elements along an axis; a size that is not known is `None`, and so is a list of
//! which not even the length is known.
//!
//! Knows no graph, and does not know where an answer comes from.

use crate::facts::shape_rules::extent::{Extent, Extents, extents, known, number};
use crate::onnx::node::{Node, from_front};

/// Dimensions of a tensor; `None` where a size is not known. For a sequence, the dimensions that
/// all its tensors have.
pub type Dims = Vec<Option<i64>>;

/// Integers that a tensor holds, in its order; `None` where an integer is not known.
pub type Integers = Vec<Option<i64>>;

/// What is known of a node's operands, in numbers.
pub trait Operands {
    /// Returns the dimensions of input number `input`; `None` if its rank is not known or it is
    /// left out.
    fn dims(&self, input: usize) -> Option<Dims>;

    /// Returns the integers that a short list (or scalar) input of type int64, int32 or bool
    /// holds; `None` if they are not known; single elements may be unknown.
    fn integers(&self, input: usize) -> Option<Integers>;

    /// Returns the float32 numbers that a short list holds: the factors of a Resize.
    fn factors(&self, input: usize) -> Option<Vec<f32>> {
        let _ = input;
        None
    }

    /// Returns the dimensions that output number `output` must have for other reasons than this
    /// node: what its readers demand. Only [`input_dims`] asks for them.
    fn demanded(&self, output: usize) -> Option<Dims> {
        let _ = output;
        None
    }
}

/// What is known of a node's operands, with names for sizes that nobody knows; otherwise as
/// [`Operands`].
pub trait SymbolicOperands {
    /// Returns the dimensions of input number `input`.
    fn dims(&self, input: usize) -> Option<Extents>;

    /// Returns the integers that input number `input` holds.
    fn integers(&self, input: usize) -> Option<Extents>;

    /// Returns the float32 numbers that input number `input` holds.
    fn factors(&self, input: usize) -> Option<Vec<f32>>;

    /// Returns the dimensions that output number `output` must have for other reasons than this
    /// node.
    fn demanded(&self, output: usize) -> Option<Extents>;
}

/// Operands of which only numbers are known, and no names.
pub struct NumericOperands<'a>(pub &'a dyn Operands);

impl SymbolicOperands for NumericOperands<'_> {
    fn dims(&self, input: usize) -> Option<Extents> {
        self.0.dims(input).map(extents)
    }

    fn integers(&self, input: usize) -> Option<Extents> {
        self.0.integers(input).map(extents)
    }

    fn factors(&self, input: usize) -> Option<Vec<f32>> {
        self.0.factors(input)
    }

    fn demanded(&self, output: usize) -> Option<Extents> {
        self.0.demanded(output).map(extents)
    }
}

/// Upper bound on the rank of a tensor; no tensor of a network has more axes.
pub const MAX_RANK: usize = 16;

/// Upper bound on the length of a list of integers that is followed element by element.
pub const MAX_INTEGERS: usize = 64;

/// A rule for the dimensions of the output that is asked for.
pub type DimsRule = fn(&Asked) -> Option<Extents>;

/// A rule for the integers that this output holds.
pub type IntegersRule = fn(&Asked) -> Option<Extents>;

/// A rule for the dimensions that an input must have.
pub type DemandRule = fn(&Asked, usize) -> Option<Extents>;

/// What a rule is asked: about which output of which node, given what is known.
pub struct Asked<'a> {
    /// The node.
    pub node: &'a Node,
    /// The operator set of its model.
    pub opset: i64,
    /// The number of the output that is asked about.
    pub output: usize,
    /// What is known of its operands.
    pub operands: &'a dyn SymbolicOperands,
}

impl Asked<'_> {
    /// Returns the same question about another output.
    pub fn about(&self, output: usize) -> Self {
        Asked { output, ..*self }
    }

    /// Returns the dimensions of input number `input`, as far as they are known.
    pub fn dims(&self, input: usize) -> Option<Extents> {
        self.node.input(input)?;
        self.operands.dims(input)
    }

    /// Returns the dimensions of all inputs. All are asked for, so that whoever answers hears at
    /// once of everything that is missing.
    pub fn all_dims(&self) -> Vec<Option<Extents>> {
        (0..self.inputs()).map(|input| self.dims(input)).collect()
    }

    /// Returns the integers that input number `input` holds.
    pub fn integers(&self, input: usize) -> Option<Extents> {
        self.node.input(input)?;
        self.operands.integers(input)
    }

    /// Returns the factors that input number `input` holds; there is at least one.
    pub fn factors(&self, input: usize) -> Option<Vec<f32>> {
        self.node.input(input)?;
        self.operands.factors(input).filter(|factors| !factors.is_empty())
    }

    /// Returns the dimensions that the readers of output number `output` demand.
    pub fn demanded(&self, output: usize) -> Option<Extents> {
        self.node.outputs.get(output).copied().flatten()?;
        self.operands.demanded(output)
    }

    /// Whether the input is there, and not left out.
    pub fn has(&self, input: usize) -> bool {
        self.node.input(input).is_some()
    }

    /// Returns how many inputs there are, including those that are left out.
    pub fn inputs(&self) -> usize {
        self.node.inputs.len()
    }

    /// Returns a list that is an attribute in old operator sets and an input in new ones.
    pub fn list(&self, name: &str, input: usize) -> List {
        match self.node.ints(name) {
            Some(list) => List::Known(known(list)),
            None if !self.has(input) => List::LeftOut,
            None => match self.integers(input) {
                Some(list) => List::Known(list),
                None => List::OfLength(self.length(input)),
            },
        }
    }

    /// Returns how many elements the list has that is input number `input`.
    pub fn length(&self, input: usize) -> Option<usize> {
        match self.dims(input)?.as_slice() {
            &[length] => usize::try_from(number(length)?).ok(),
            _ => None,
        }
    }

    /// Returns the attribute `axis`, counted from the front, for a tensor with `rank` axes.
    pub fn axis(&self, default: i64, rank: usize) -> Option<usize> {
        from_front(self.node.int("axis", default), rank)
    }

    /// Returns a string attribute.
    pub fn word(&self, name: &str) -> &[u8] {
        self.node.attribute(name).map_or(&b""[..], |attribute| attribute.s())
    }
}

/// A list of integers that tells a node what to do.
pub enum List {
    /// The list is left out.
    LeftOut,
    /// The list is not known; its length may be.
    OfLength(Option<usize>),
    /// The list is known, possibly except for single elements.
    Known(Extents),
}

impl List {
    /// Returns all elements, if all are known.
    pub fn whole(&self) -> Option<Vec<i64>> {
        match self {
            List::Known(list) => list.iter().copied().map(number).collect(),
            _ => None,
        }
    }

    /// Returns how many elements the list has, if that is known.
    pub fn length(&self) -> Option<usize> {
        match self {
            List::LeftOut => None,
            List::OfLength(length) => *length,
            List::Known(list) => Some(list.len()),
        }
    }
}

/// Returns `rank` dimensions of unknown size; `None` if no tensor of a network has so many.
pub fn open(rank: usize) -> Option<Extents> {
    (rank <= MAX_RANK).then(|| vec![None; rank])
}

/// Returns what follows for a tensor from two sources, each of which is right where it says
/// something; `None` if they contradict each other.
pub fn agreed<T: Agree>(left: &[Option<T>], right: &[Option<T>]) -> Option<Vec<Option<T>>> {
    let agree = |(&left, &right): (&Option<T>, &Option<T>)| match (left, right) {
        (Some(left), Some(right)) => left.agreed(right).map(Some),
        _ => Some(left.or(right)),
    };
    if left.len() == right.len() { left.iter().zip(right).map(agree).collect() } else { None }
}

/// What two sources say of one size.
pub trait Agree: Copy {
    /// Returns what follows from both; `None` if they contradict each other.
    fn agreed(self, other: Self) -> Option<Self>;
}

impl Agree for i64 {
    fn agreed(self, other: Self) -> Option<Self> {
        (self == other).then_some(self)
    }
}

impl Agree for Extent {
    /// A number says more than a name, and two names may be names of one size.
    fn agreed(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Extent::Number(left), Extent::Number(right)) => left.agreed(right).map(Self::Number),
            (Extent::Number(_), _) => Some(self),
            (_, Extent::Number(_)) => Some(other),
            _ => Some(self),
        }
    }
}
