//! The branches of a kernel that is a sum, and the kernel without one of them:
//! `L = (L − Lᵢ) ⊕ Lᵢ`.
//!
//! Knows the summands of a kernel; does not decide which branch should be left out.

use std::sync::Arc;

use crate::affine::geometry::{Channels, Geometry};
use crate::affine::kernel::{Affine, Summand};
use crate::affine::quantization::EachPiece;
use crate::affine::window::Window;
use crate::numbers::{self, LazyWeights, pieces};

/// One branch of a kernel that is a sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelBranch {
    /// Indices of the branch's summands in the sum.
    summands: Vec<usize>,
    /// Taps per spatial axis; `None` for the identity, scaled or not. All summands that map each
    /// element to a multiple of itself are one branch.
    pub kernel: Option<Vec<i64>>,
}

/// A kernel without one of its branches, and that branch.
#[derive(Debug, Clone)]
pub struct ApartKernels {
    /// The geometry of the whole kernel.
    whole: Geometry,
    /// The kernel without the branch, with the bias of the whole.
    pub rest: Affine,
    /// The branch; the identity is a scale per channel.
    pub branch: Affine,
}

/// The branch that holds the largest weight in the most filters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DominantBranch {
    /// Taps per spatial axis; `None` for the identity, scaled or not.
    pub kernel: Option<Vec<i64>>,
    /// Number of filters whose largest weight is in this branch.
    pub filters: usize,
    /// Number of all filters.
    pub all: usize,
}

impl Affine {
    /// All branches, in the order in which they were added.
    fn all_branches(&self) -> Vec<KernelBranch> {
        let mut branches: Vec<KernelBranch> = Vec::new();
        for (at, summand) in self.summands.iter().enumerate() {
            let is_scale = self.is_scale_of(summand);
            let scale = branches.iter_mut().find(|branch| branch.kernel.is_none() && is_scale);
            match scale {
                Some(branch) => branch.summands.push(at),
                None => {
                    let taps = || summand.geometry.windows.iter().map(|window| window.taps);
                    let kernel = (!is_scale).then(|| taps().collect());
                    branches.push(KernelBranch { summands: vec![at], kernel });
                }
            }
        }
        branches
    }

    /// The branches that may be left out: without any one of them, the rest is still a kernel of
    /// the same windows and channels.
    pub(crate) fn branches(&self) -> Vec<KernelBranch> {
        let mut branches = self.all_branches();
        branches.retain(|branch| {
            let mut others = (0..).zip(&self.summands);
            let is_kernel = branch.kernel.is_some();
            let has_outputs = |at: &usize| {
                let own = self.summands.get(*at).and_then(|summand| summand.geometry.channels);
                own.map(|own| own.outputs) == self.geometry.channels.map(|all| all.outputs)
            };
            others.any(|(at, other)| !branch.summands.contains(&at) && self.is_as_wide(other))
                && (!is_kernel || branch.summands.iter().all(has_outputs))
        });
        branches
    }

    /// Returns the branch that holds the largest weight in the most filters; `None` if the
    /// kernel has only one branch.
    pub(crate) fn dominant(&self, work: &impl EachPiece) -> Option<DominantBranch> {
        let branches = self.all_branches();
        if branches.len() < 2 {
            return None;
        }
        let alone = |branch: &KernelBranch| {
            let summands = branch.summands.iter().filter_map(|&at| self.summands.get(at));
            Affine { summands: summands.cloned().collect(), ..self.clone() }
        };
        let alone: Vec<Affine> = branches.iter().map(alone).collect();
        let row = self.shape().iter().skip(1).product::<usize>().max(1);
        let holders = work.each(pieces(self.count(), row).collect(), |piece| {
            let read = |map| numbers::read(map, piece.clone());
            let parts: Vec<Vec<f64>> = alone.iter().map(|branch| read(branch)).collect();
            let rows = read(self);
            let largest = |numbers: &mut dyn Iterator<Item = f64>| {
                let numbered = numbers.map(f64::abs).enumerate();
                numbered.reduce(|best, other| if other.1 > best.1 { other } else { best })
            };
            let holder = |(number, filter): (usize, &[f64])| {
                let (place, _) = largest(&mut filter.iter().copied())?;
                let at = number * row + place;
                let of_parts = &mut parts.iter().filter_map(|part| part.get(at).copied());
                Some(largest(of_parts)?.0)
            };
            rows.chunks(row).enumerate().filter_map(holder).collect::<Vec<usize>>()
        });
        let holders: Vec<usize> = holders.into_iter().flatten().collect();
        let counted = branches.into_iter().enumerate().map(|(number, branch)| {
            let filters = holders.iter().filter(|&&holder| holder == number).count();
            DominantBranch { kernel: branch.kernel, filters, all: holders.len() }
        });
        counted.reduce(|best, other| if other.filters > best.filters { other } else { best })
    }

    /// Whether the summand has the windows and channels of the whole sum.
    fn is_as_wide(&self, summand: &Summand) -> bool {
        let Geometry { channels, windows, .. } = &summand.geometry;
        *channels == self.geometry.channels && *windows == self.geometry.windows
    }

    /// Whether the summand maps each element to a multiple of itself, wherever that goes.
    fn is_scale_of(&self, summand: &Summand) -> bool {
        let Some(all) = self.geometry.channels else { return false };
        summand.geometry.channels.is_none_or(|own| own == Channels::diagonal(all.outputs))
            && summand.geometry.is_pointwise()
    }

    /// Splits the kernel into `branch` and the rest.
    pub(crate) fn apart(&self, branch: &KernelBranch) -> ApartKernels {
        let is_of_branch = |(at, _): &(usize, &Summand)| branch.summands.contains(at);
        let pick = |of_branch: bool| -> Vec<Summand> {
            let all = self.summands.iter().enumerate();
            let some = all.filter(|summand| is_of_branch(summand) == of_branch);
            some.map(|(_, summand)| summand.clone()).collect()
        };
        let (left_out, whole) = (pick(true), self.geometry.clone());
        let outputs = whole.channels.map_or(1, |channels| channels.outputs);
        let mut own = Geometry { shifted: false, ..whole.clone() };
        if branch.kernel.is_none() {
            own.channels = Some(Channels::diagonal(outputs));
            own.windows.fill(Window::IDENTITY);
        } else if let [summand] = left_out.as_slice() {
            own.channels = summand.geometry.channels;
            own.windows.clone_from(&summand.geometry.windows);
        }
        let alone = Affine::sum(own.clone(), left_out, vec![0.0; outputs]);
        let alone = match branch.kernel {
            None => Affine::new(own, Arc::new(numbers::all(&alone)), vec![0.0; outputs]),
            Some(_) => alone,
        };
        let rest = Affine::sum(whole.clone(), pick(false), self.bias.clone());
        ApartKernels { whole, rest, branch: alone }
    }
}

impl ApartKernels {
    /// The same kernels, with the weights of each replaced by what `stored` returns for them.
    #[must_use]
    pub fn stored(self, stored: impl Fn(Arc<dyn LazyWeights>) -> Arc<dyn LazyWeights>) -> Self {
        let of = |affine: Affine| {
            let (geometry, bias) = (affine.geometry.clone(), affine.bias.clone());
            Affine::new(geometry, stored(Arc::new(affine)), bias)
        };
        ApartKernels { whole: self.whole, rest: of(self.rest), branch: of(self.branch) }
    }

    /// The two kernels added up again.
    pub fn together(&self) -> Affine {
        let summands = [&self.rest, &self.branch].map(|part| &part.summands).into_iter().flatten();
        Affine::sum(self.whole.clone(), summands.cloned().collect(), self.rest.bias.clone())
    }
}
