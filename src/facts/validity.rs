//! The inputs for which a reading of nodes is right.
//!
//! Most readings are right for all inputs. If a size, a rank or a list of integers played a
//! part, the reading says so, as a condition on a tensor of the file. What is made of several
//! meanings is right where all of them are: the conditions of ∘ and ⊕ are put together. A block
//! claims them, the report prints those that the file does not promise, and verification holds
//! the file to them.
//!
//! Knows tensors and what must hold of them; does not know what the reading says.

use std::fmt;

use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;

/// A set of sizes along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SizeSet {
    /// This size and all larger ones.
    AtLeast(i64),
    /// Sizes with `size mod modulus = remainder`.
    Congruent {
        /// 0 or more, less than the modulus.
        remainder: i64,
        /// 2 or more.
        modulus: i64,
    },
    /// This size alone.
    Exactly(i64),
}

impl SizeSet {
    /// Whether `size` is in the set.
    pub fn contains(&self, size: i64) -> bool {
        match *self {
            SizeSet::AtLeast(least) => size >= least,
            SizeSet::Congruent { remainder, modulus } => {
                size.checked_rem_euclid(modulus) == Some(remainder)
            }
            SizeSet::Exactly(only) => size == only,
        }
    }
}

/// A property that a tensor must have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Property {
    /// It has this many axes.
    Rank(usize),
    /// Its size along an axis is in a set.
    Size(usize, SizeSet),
    /// It is this list of integers.
    Integers(Vec<i64>),
}

/// A condition that must hold for a reading to be right.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Condition {
    /// The tensor that it is about.
    pub tensor: ValueId,
    /// The property that the tensor must have.
    pub property: Property,
}

impl Condition {
    /// Whether it is about integers that follow from sizes.
    pub fn is_of_integers(&self) -> bool {
        matches!(self.property, Property::Integers(_))
    }

    /// Whether it allows only one size along an axis.
    pub fn is_of_one_size(&self) -> bool {
        matches!(self.property, Property::Size(_, SizeSet::Exactly(_)))
    }

    /// Returns the condition in words, as in `axis 2 of `x` has 64 elements`.
    pub fn describe(&self, graph: &Graph) -> String {
        let name = graph.value(self.tensor).name;
        match &self.property {
            Property::Rank(rank) => format!("`{name}` has {rank} axes"),
            Property::Size(axis, sizes) => format!("axis {axis} of `{name}` has {sizes}"),
            Property::Integers(values) => format!("`{name}` is {values:?}"),
        }
    }
}

impl fmt::Display for SizeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SizeSet::AtLeast(least) => write!(f, "at least {least} elements"),
            SizeSet::Exactly(1) => f.write_str("1 element"),
            SizeSet::Congruent { remainder: 0, modulus: 2 } => {
                f.write_str("an even number of elements")
            }
            SizeSet::Congruent { remainder: 1, modulus: 2 } => {
                f.write_str("an odd number of elements")
            }
            SizeSet::Congruent { remainder: 0, modulus } => {
                write!(f, "a multiple of {modulus} elements")
            }
            SizeSet::Congruent { remainder, modulus } => {
                write!(f, "{modulus}·k + {remainder} elements")
            }
            SizeSet::Exactly(only) => write!(f, "{only} elements"),
        }
    }
}

/// All conditions of a reading, each once; most readings have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validity(Vec<Condition>);

impl Validity {
    /// Whether the reading is right for every input.
    pub fn is_everywhere(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the conditions that must hold.
    pub fn conditions(&self) -> &[Condition] {
        &self.0
    }

    /// Adds a condition. That there is an element, as in every tensor of a network, need not be
    /// said.
    pub fn require(&mut self, tensor: ValueId, property: Property) {
        use SizeSet::{AtLeast, Congruent};
        let says_nothing =
            matches!(property, Property::Size(_, AtLeast(..2) | Congruent { modulus: ..2, .. }));
        let condition = Condition { tensor, property };
        if !says_nothing && !self.0.contains(&condition) {
            self.0.push(condition);
        }
    }

    /// Returns the same conditions on the tensors of which, by `source`, theirs are other names:
    /// what is claimed of a root is said of the root, and not of what an Identity makes of it.
    #[must_use]
    pub fn of_sources(mut self, source: impl Fn(ValueId) -> ValueId) -> Self {
        self.0.iter_mut().for_each(|condition| condition.tensor = source(condition.tensor));
        self
    }

    /// Adds the conditions of `other`.
    pub fn intersect(&mut self, other: &Validity) {
        for condition in &other.0 {
            self.require(condition.tensor, condition.property.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_their_set() {
        let odd = SizeSet::Congruent { remainder: 1, modulus: 2 };
        for (set, size, is_in) in [
            (SizeSet::AtLeast(3), 3, true),
            (SizeSet::AtLeast(3), 2, false),
            (odd, 7, true),
            (odd, 8, false),
            (SizeSet::Congruent { remainder: 0, modulus: 0 }, 8, false),
            (SizeSet::Exactly(64), 64, true),
            (SizeSet::Exactly(64), 128, false),
        ] {
            assert_eq!(set.contains(size), is_in, "{size} has {set}");
        }
    }
}
