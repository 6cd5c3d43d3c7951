//! Which branch of a block is kept apart from its kernel, because in it the kernel's int8
//! weights would be far less exact: `y = (L − Lᵢ)(r) + Lᵢ(r)`.
//!
//! An identity puts one large weight into each filter, which makes the rounding steps of all
//! others large: of nine weights of 0.1 and an identity of 5, each is rounded to a multiple of
//! 0.04. The same holds for every branch that dwarfs the others, whatever its name is.
//!
//! What is measured is what is written: weights in the type of the file. A second conversion
//! reads these and measures the same; it finds the same branches to be left apart, and so
//! nothing to do. Weights that were equalized since are others, and more exact, so a branch
//! that stands apart already joins its kernel only at a higher ratio.
//!
//! Knows terms with their weights; does not know whether the form that is left pays.

use std::sync::Arc;

use crate::affine::{
    Affine, ApartKernels, Geometry, KernelBranch, Linear, MOST_LOST, RoundingNoise,
};
use crate::emit::term::{Term, TermKind};
use crate::emit::weights::InParallel;
use crate::numbers::{LazyWeights, all};
use crate::onnx::float::Float;
use crate::ops::meaning::Sign;
use crate::options::KeepIdentity;

/// A branch that is kept apart.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptBranch {
    /// The index of its term.
    pub term: usize,
    /// The branch of that term's kernel.
    pub branch: KernelBranch,
    /// Signal-to-noise ratio, in dB, of int8 weights with one step per kernel if the branch is
    /// in the kernel; `None` if rounding changes nothing.
    pub together: Option<f64>,
    /// The same ratio with the branch apart.
    pub apart: Option<f64>,
}

/// Returns the branches of these `terms` that are kept apart in a model of this type, at most
/// one per term. With [`KeepIdentity::Auto`], these are branches of kernels that would be
/// left with fewer than `least` dB.
///
/// # Errors
/// Returns a branch that has to be kept apart and cannot be written apart: between views,
/// before another kernel, or where it would be turned. Then nothing is merged there.
pub fn kept(
    terms: &[Term<Affine>],
    float: Float,
    keep: KeepIdentity,
    least: f64,
) -> Result<Vec<KeptBranch>, KeptBranch> {
    let mut all = Vec::new();
    for (number, term) in terms.iter().enumerate() {
        for kernel in term.kernels().filter(|kernel| kernel.kind == TermKind::Conv) {
            let found = apart_from(&kernel.map, float, keep, least);
            let Some((branch, measured)) = found else { continue };
            let Geometry { input, output, .. } = kernel.map.geometry();
            let is_turned = branch.kernel.is_none() && input != output;
            let kept = measured.kept(number, branch);
            if is_turned || !is_alone(term) {
                return Err(kept);
            }
            all.push(kept);
        }
    }
    Ok(all)
}

/// Whether the term is a kernel of its root and nothing else.
fn is_alone(term: &Term<Affine>) -> bool {
    !term.has_views() && term.inner.is_none() && term.part.is_none()
}

/// Returns the branch that stays apart from this kernel, with what rounding does to both.
fn apart_from(
    map: &Affine,
    float: Float,
    keep: KeepIdentity,
    least: f64,
) -> Option<(KernelBranch, MergeNoise)> {
    let branches = map.branches();
    match keep {
        KeepIdentity::Never => None,
        KeepIdentity::Auto => costliest(map, branches, float, least),
        KeepIdentity::Always => {
            let identity = branches.into_iter().find(|branch| branch.kernel.is_none())?;
            let parts = apart(map, &identity, float);
            let together = RoundingNoise::of_kernel(&parts.together(), &InParallel);
            let apart = noise_apart(&parts, &identity);
            Some((identity, MergeNoise { together, apart }))
        }
    }
}

/// Returns the branch without which the weights are the most exact, if merging it costs too
/// much: more than [`MOST_LOST`], and so much that fewer than `least` dB are left. With more dB
/// left, the rounding of activations hides that of weights, and two more activations are
/// rounded if the branch is apart.
fn costliest(
    map: &Affine,
    branches: Vec<KernelBranch>,
    float: Float,
    least: f64,
) -> Option<(KernelBranch, MergeNoise)> {
    let measured = branches.into_iter().filter_map(|branch| {
        let apart = apart(map, &branch, float);
        let together = RoundingNoise::of_kernel(&apart.together(), &InParallel);
        if together.sqnr() >= least {
            return None;
        }
        let measured = MergeNoise { together, apart: noise_apart(&apart, &branch) };
        (measured.lost() > MOST_LOST).then_some((branch, measured))
    });
    // Of two that are equally good, the first one.
    measured.reduce(|best, other| if other.1.lost() > best.1.lost() { other } else { best })
}

/// Returns the kernel without `branch`, and `branch`, both in the type of the file.
fn apart(map: &Affine, branch: &KernelBranch, float: Float) -> ApartKernels {
    map.apart(branch).stored(|weights| Arc::new(StoredWeights { weights, float }))
}

/// Returns what rounding does to a kernel and one of its branches, apart; a scale per channel
/// is not rounded.
fn noise_apart(parts: &ApartKernels, branch: &KernelBranch) -> RoundingNoise {
    let rest = RoundingNoise::of_kernel(&parts.rest, &InParallel);
    match branch.kernel {
        Some(_) => rest.beside(&RoundingNoise::of_kernel(&parts.branch, &InParallel)),
        None => rest,
    }
}

/// What rounding does to a kernel with a branch in it, and to both apart.
#[derive(Debug, Clone, Copy)]
struct MergeNoise {
    together: RoundingNoise,
    apart: RoundingNoise,
}

impl MergeNoise {
    /// Returns how many dB less exact the weights are in one kernel.
    fn lost(&self) -> f64 {
        self.apart.sqnr() - self.together.sqnr()
    }

    fn kept(&self, term: usize, branch: KernelBranch) -> KeptBranch {
        let of = |noise: &RoundingNoise| noise.int8().sqnr_per_tensor;
        KeptBranch { term, branch, together: of(&self.together), apart: of(&self.apart) }
    }
}

/// Returns these terms with the kept branches apart, each behind all others.
pub fn parted(mut terms: Vec<Term<Affine>>, kept: &[KeptBranch]) -> Vec<Term<Affine>> {
    for KeptBranch { term, branch, .. } in kept {
        let Some(term) = terms.get_mut(*term) else { continue };
        let apart = term.map.apart(branch);
        term.map = apart.rest;
        let kind = match branch.kernel {
            Some(_) => TermKind::Conv,
            None => kind_of_scale(&apart.branch),
        };
        let branch = Term { map: apart.branch, kind, ..term.clone() };
        terms.push(branch);
    }
    terms
}

/// Returns the kind of a term with this scale; a scale of ones is the tensor itself.
fn kind_of_scale(scale: &Affine) -> TermKind {
    let scales = all(scale);
    let is_all = |number: f64| scales.iter().all(|&scale| scale == number);
    match (is_all(1.0), is_all(-1.0)) {
        (true, _) => TermKind::Identity(Sign::Plus),
        (_, true) => TermKind::Identity(Sign::Minus),
        _ => TermKind::Pointwise,
    }
}

/// Weights, rounded to the type in which they are stored.
#[derive(Debug)]
struct StoredWeights {
    weights: Arc<dyn LazyWeights>,
    float: Float,
}

impl LazyWeights for StoredWeights {
    fn count(&self) -> usize {
        self.weights.count()
    }

    fn read(&self, start: usize, into: &mut [f64]) {
        self.weights.read(start, into);
        into.iter_mut().for_each(|weight| *weight = self.float.round(*weight));
    }
}
