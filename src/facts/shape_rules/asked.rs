//! What a shape rule is asked, and what it may look at: one node, and what is known of its
//! operands, be it true of a file or only supposed.
//!
//! Sizes count elements along an axis; one that is not known is `None`, and so is a list of
//! which not even the length is known.
//!
//! Knows no graph, and not where an answer comes from.

use crate::facts::shape_rules::extent::{Extent, Extents, extents, known, number};
use crate::onnx::node::{Node, from_front};

/// Dimensions of a tensor; `None` where a size is not known. Of a sequence: those that all
/// its tensors have.
pub type Dims = Vec<Option<i64>>;

/// Integers that a tensor holds, in its order; `None` where one is not known.
pub type Integers = Vec<Option<i64>>;

/// What is known of a node's operands, in numbers.
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

/// What is known of a node's operands, with names for sizes that nobody knows; otherwise as
/// [`Operands`].
pub trait SymbolicOperands {
    /// Dimensions of input number `input`.
    fn dims(&self, input: usize) -> Option<Extents>;

    /// The integers that input number `input` holds.
    fn integers(&self, input: usize) -> Option<Extents>;

    /// The float32 numbers that it holds.
    fn factors(&self, input: usize) -> Option<Vec<f32>>;

    /// Dimensions that output number `output` must have for other reasons than this node.
    fn demanded(&self, output: usize) -> Option<Extents>;
}

/// Operands of which numbers are known, and no names.
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

/// No tensor of a network has more axes.
pub const MAX_RANK: usize = 16;

/// Lists of integers that are not longer are followed, element by element.
pub const MAX_INTEGERS: usize = 64;

/// Dimensions of the output that is asked for.
pub type DimsRule = fn(&Asked) -> Option<Extents>;

/// Integers that it holds.
pub type IntegersRule = fn(&Asked) -> Option<Extents>;

/// Dimensions that an input must have.
pub type DemandRule = fn(&Asked, usize) -> Option<Extents>;

/// What a rule is asked: about which output of which node, and what is known.
pub struct Asked<'a> {
    /// The node.
    pub node: &'a Node,
    /// The operator set of its model.
    pub opset: i64,
    /// The number of the output.
    pub output: usize,
    /// What is known of its operands.
    pub operands: &'a dyn SymbolicOperands,
}

impl Asked<'_> {
    /// The same, about another output.
    pub fn about(&self, output: usize) -> Self {
        Asked { output, ..*self }
    }

    /// Dimensions of input number `input`, as far as they are known.
    pub fn dims(&self, input: usize) -> Option<Extents> {
        self.node.input(input)?;
        self.operands.dims(input)
    }

    /// Of all inputs. Whoever answers hears at once of all that is asked.
    pub fn all_dims(&self) -> Vec<Option<Extents>> {
        (0..self.inputs()).map(|input| self.dims(input)).collect()
    }

    /// Integers that input number `input` holds.
    pub fn integers(&self, input: usize) -> Option<Extents> {
        self.node.input(input)?;
        self.operands.integers(input)
    }

    /// Factors that input number `input` holds; there is one at least.
    pub fn factors(&self, input: usize) -> Option<Vec<f32>> {
        self.node.input(input)?;
        self.operands.factors(input).filter(|factors| !factors.is_empty())
    }

    /// Dimensions that the readers of output number `output` demand.
    pub fn demanded(&self, output: usize) -> Option<Extents> {
        self.node.outputs.get(output).copied().flatten()?;
        self.operands.demanded(output)
    }

    /// Whether there is such an input.
    pub fn has(&self, input: usize) -> bool {
        self.node.input(input).is_some()
    }

    /// How many inputs there are, those that are left out among them.
    pub fn inputs(&self) -> usize {
        self.node.inputs.len()
    }

    /// A list that old operator sets have as an attribute and new ones as an input.
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

    /// How many elements a list has that is input number `input`.
    pub fn length(&self, input: usize) -> Option<usize> {
        match self.dims(input)?.as_slice() {
            &[length] => usize::try_from(number(length)?).ok(),
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
pub enum List {
    /// There is none.
    LeftOut,
    /// It is not known; maybe its length is.
    OfLength(Option<usize>),
    /// It is known, maybe but for single elements.
    Known(Extents),
}

impl List {
    /// All elements, if all are known.
    pub fn whole(&self) -> Option<Vec<i64>> {
        match self {
            List::Known(list) => list.iter().copied().map(number).collect(),
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
pub fn open(rank: usize) -> Option<Extents> {
    (rank <= MAX_RANK).then(|| vec![None; rank])
}

/// What follows of a tensor from two sources, of which each is right where it says
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
    /// What follows of both; `None` if they contradict each other.
    fn agreed(self, other: Self) -> Option<Self>;
}

impl Agree for i64 {
    fn agreed(self, other: Self) -> Option<Self> {
        (self == other).then_some(self)
    }
}

impl Agree for Extent {
    /// A number says more than a name, and two names may be of one size.
    fn agreed(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Extent::Number(left), Extent::Number(right)) => left.agreed(right).map(Self::Number),
            (Extent::Number(_), _) => Some(self),
            (_, Extent::Number(_)) => Some(other),
            _ => Some(self),
        }
    }
}
