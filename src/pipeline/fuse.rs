//! Turns a planned block into what takes its place: computes its terms, then writes them.
//!
//! Knows the plan and the writer, neither of which knows the other's graph or names.

use std::borrow::Cow;

use crate::affine::{Affine, Comparison};
use crate::emit::nodes::{self, FusedNodes, NormalForm};
use crate::emit::term::{Term, TermKind};
use crate::emit::weights::{InParallel, NotFinite};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::{Block, Plan, WeightError, parted};

/// Computes the normal form of a block of `plan`, weights included: part by part, within each
/// part convolutions first, because a subtracted term needs something to be subtracted from.
///
/// # Errors
/// Returns an error if a weight cannot be read or computed, or is not what the shapes allowed.
pub fn terms(
    reader: &Reader,
    meanings: &Meanings,
    plan: &Plan,
    block: &Block,
) -> Result<Vec<Term<Affine>>, WeightError> {
    let terms = plan.recipes.with_weights(block.recipe, meanings, reader)?;
    let mut terms = parted(terms, &block.kept);
    terms.sort_by_key(|term| (term.part(), term.kind != TermKind::Conv));
    Ok(terms)
}

/// Compares old and new weights, once per convolution. This takes a pass over both.
pub fn compared(terms: &[Term<Affine>]) -> Vec<Comparison> {
    let weighted = terms.iter().filter(|term| term.kind == TermKind::Conv);
    let weighted = weighted.flat_map(Term::kernels);
    weighted.filter_map(|term| term.map.compared(&InParallel)).collect()
}

/// Writes the nodes and weights that take the place of `block`, given its `terms`.
///
/// # Errors
/// Returns an error if a weight is already known not to be finite in the model's type.
pub fn fused(
    reader: &Reader,
    block: &Block,
    terms: &[Term<Affine>],
) -> Result<FusedNodes, NotFinite> {
    let name = |value| reader.graph.value(value).name;
    // A shift that cancels to zero is still one to the plan: the nodes may not be as planned.
    let is_as_planned = terms.len() == block.terms.len()
        && terms.iter().zip(&block.terms).all(|(term, planned)| planned.is(&term.shape()));
    let mut roots: Vec<&str> = terms.iter().map(|term| name(term.root)).collect();
    let mut terms = Cow::Borrowed(terms);
    for (at, root) in roots.iter_mut().enumerate() {
        let Some(term) = terms.get(at) else { continue };
        let Some((skipped, byproduct)) = block.skipped(term, reader.forms) else { continue };
        *root = byproduct;
        if let Some(term) = terms.to_mut().get_mut(at) {
            *term = skipped;
        }
    }
    let byproduct = block.byproduct.as_ref().filter(|_| is_as_planned);
    nodes::fused(&NormalForm {
        terms: &terms,
        roots: &roots,
        output: name(block.region.output),
        byproduct: byproduct.map(|byproduct| byproduct.name.as_str()),
        stem: &block.stem,
        tensor_stem: &block.tensor_stem,
        float: block.float,
        forms: reader.forms,
    })
}
