//! Blocks: regions that are rewritten, as they are planned.
//!
//! Plain data: what the writer, the proof and the report are told of a block.
//!
//! Knows nodes and tensors by their ids; knows no graph.

use std::sync::Arc;

use crate::affine::{Geometry, Linear};
use crate::emit::term::Term;
use crate::emit::turned::LastTurn;
use crate::facts::validity::Validity;
use crate::onnx::float::Float;
use crate::onnx::ids::{IdSet, NodeId, ValueId};
use crate::onnx::proto::NodeProto;
use crate::ops::forms::NodeForms;
use crate::plan::cost::Count;
use crate::plan::describe::Drawing;
use crate::plan::keep::KeptBranch;
use crate::plan::region::Region;

/// One region that is rewritten.
#[derive(Debug, Clone)]
pub struct Block {
    /// The common part of its branches' names.
    pub name: String,
    /// What the names of its new nodes and tensors begin with; no name in the model does.
    pub stem: String,
    /// What the names of its new tensors begin with: the stem of the first block that is the
    /// same, so that blocks which share kernels share what takes the place of these.
    pub tensor_stem: String,
    /// The nodes that it replaces.
    pub region: Region,
    /// A tensor that its new nodes make on the way, if others read it.
    pub byproduct: Option<Byproduct>,
    /// Roots in whose place its new nodes read by-products of other blocks.
    pub turned_roots: Vec<TurnedRoot>,
    /// Nodes of the file that go away with the block, since nobody else needs them.
    pub removed: IdSet<NodeId>,
    /// Its branches, as in `3×3 + 1×3 + 3×1`.
    pub branches: String,
    /// Its branches, as they may be drawn.
    pub drawing: Arc<Drawing>,
    /// How many batch norms are folded.
    pub norms: usize,
    /// The normal form: a convolution per weighted term, the rest added.
    pub terms: Vec<Term<Geometry>>,
    /// Branches that its recipe merges but that are kept apart.
    pub kept: Vec<KeptBranch>,
    /// The number of the recipe for the terms.
    pub recipe: usize,
    /// The inputs for which it is right.
    pub valid: Validity,
    /// Type of its weights.
    pub float: Float,
    /// Cost of the nodes that go away.
    pub before: Count,
    /// Cost of the new nodes.
    pub after: Count,
}

/// The tensor that the last new node of a block reads first.
#[derive(Debug, Clone)]
pub struct Byproduct {
    /// Its name.
    pub name: String,
    /// The tensor of the file that it equals, if a node of the file makes that of the block's
    /// output.
    pub of_file: Option<ValueId>,
}

/// A root of a block that another block makes of its by-product, by a Transpose.
#[derive(Debug, Clone)]
pub struct TurnedRoot {
    /// The root.
    pub root: ValueId,
    /// The name of the by-product.
    pub byproduct: String,
    /// The Transpose that makes the root.
    pub turn: LastTurn,
}

/// What takes the place of a block, by what it makes and reads.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The tensors of the file that it makes, the block's output first.
    pub made: Vec<ValueId>,
    /// Its roots.
    pub roots: Vec<ValueId>,
    /// The roots that it reads itself, and not a by-product in their place.
    pub read: Vec<ValueId>,
}

impl TurnedRoot {
    /// Returns the Transpose, with the root under the name `root`.
    pub fn transpose(&self, root: &str) -> NodeProto {
        self.turn.node(&self.byproduct, root)
    }

    /// Returns `term` as a term of the by-product, if it reads this root and takes fewer nodes
    /// that way.
    pub fn skipped<L: Linear>(&self, term: &Term<L>, forms: NodeForms) -> Option<Term<L>> {
        if term.root == self.root { self.turn.skipped(term, forms) } else { None }
    }
}

impl Block {
    /// Whether this block is written like `other`, whatever becomes of the blocks around both.
    pub fn is(&self, other: &Self) -> bool {
        let stands_alone =
            |block: &Self| block.byproduct.is_none() && block.turned_roots.is_empty();
        let mut terms = self.terms.iter().zip(&other.terms);
        stands_alone(self)
            && stands_alone(other)
            && (&self.name, &self.stem) == (&other.name, &other.stem)
            && self.tensor_stem == other.tensor_stem
            && self.region == other.region
            && self.terms.len() == other.terms.len()
            && terms.all(|(own, other)| own.is(other))
            && self.kept == other.kept
            && (&self.valid, self.float) == (&other.valid, other.float)
    }

    /// Returns the tensors of the file that it makes, its output first.
    pub fn tensors_made(&self) -> impl Iterator<Item = ValueId> {
        let byproduct = self.byproduct.as_ref().and_then(|byproduct| byproduct.of_file);
        [Some(self.region.output), byproduct].into_iter().flatten()
    }

    /// Returns `term` as a term of a by-product of another block, with the name of that, if it
    /// reads one in the place of its root.
    pub fn skipped<L: Linear>(&self, term: &Term<L>, forms: NodeForms) -> Option<(Term<L>, &str)> {
        let mut turned = self.turned_roots.iter();
        turned.find_map(|turned| Some((turned.skipped(term, forms)?, turned.byproduct.as_str())))
    }

    /// Returns `term` as it is written.
    pub fn written<L: Linear>(&self, term: &Term<L>, forms: NodeForms) -> Term<L> {
        self.skipped(term, forms).map_or_else(|| term.clone(), |(skipped, _)| skipped)
    }

    /// Returns what takes the place of the block, as it is planned.
    pub fn replacement(&self, forms: NodeForms) -> Replacement {
        let root = |term: &Term<Geometry>| term.root;
        let as_it_is = |term: &&Term<Geometry>| self.skipped(*term, forms).is_none();
        Replacement {
            made: self.tensors_made().collect(),
            roots: self.terms.iter().map(root).collect(),
            read: self.terms.iter().filter(as_it_is).map(root).collect(),
        }
    }

    /// Returns the tensors of the file that it makes, each with the roots that it is computed
    /// from.
    pub fn made(&self) -> impl Iterator<Item = (ValueId, Vec<ValueId>)> {
        let roots = || self.terms.iter().map(|term| term.root).collect();
        self.tensors_made().map(move |tensor| (tensor, roots()))
    }
}
