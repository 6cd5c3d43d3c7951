//! The budget for evaluating the constants of a model, and how much of it is left.
//!
//! Knows counts of elements and steps; knows no node.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::engine::EngineError;

/// An upper bound on the elements and multiply-adds of a computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Elements of all that is made.
    pub elements: i64,
    /// Multiply-adds on the way.
    pub work: i64,
}

/// What one constant may take; no constant of a real model has more elements, or takes more
/// multiply-adds.
const MOST_OF_ONE: Estimate = Estimate { elements: 1 << 26, work: 1 << 33 };

/// Elements that a constant may have beyond one per byte of the file.
const MOST_FROM_NOTHING: i64 = 1 << 22;

/// All constants together may take this many times what one constant may take.
const TIMES: i64 = 4;

/// What all constants together may take per byte of the file, if that is more: the kernels of an
/// OREPA ResNet-18 (159 MB) take 3 elements and 270 multiply-adds per byte.
const MOST_PER_BYTE: Estimate = Estimate { elements: 8, work: 512 };

/// Upper bound on what that allows, however large the file is: a constant that several nodes
/// read is held in memory.
const MOST_OF_ALL: Estimate = Estimate { elements: 1 << 29, work: 1 << 37 };

/// Upper bound on the elements that are moved to find out what the borders of one model do: some
/// seconds. A super-resolution network of 16 channels at 224² has half a million elements and a
/// dozen borders.
const MOST_MOVES: usize = 1 << 30;

/// Upper bound on the elements moved for one border: some hundred megabytes.
const MOST_MOVES_OF_ONE: usize = 1 << 27;

/// What one constant may take, and what is left for all together.
#[derive(Debug)]
pub struct Budget {
    one: Estimate,
    left: Mutex<Estimate>,
    /// Elements that may still be moved to try borders.
    moves: Mutex<usize>,
    /// The first computation within the budget that the engine did not finish, and why.
    overrun: OnceLock<(String, EngineError)>,
}

impl Budget {
    /// Returns the budget of a model of this many bytes, its side files included.
    pub fn new(bytes: usize) -> Self {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let elements = bytes.saturating_add(MOST_FROM_NOTHING).min(MOST_OF_ONE.elements);
        let one = Estimate { elements, ..MOST_OF_ONE };
        let (largest, of_file) = (one.times(TIMES), MOST_PER_BYTE.times(bytes));
        let all = Estimate {
            elements: of_file.elements.min(MOST_OF_ALL.elements).max(largest.elements),
            work: of_file.work.min(MOST_OF_ALL.work).max(largest.work),
        };
        let (left, moves) = (Mutex::new(all), Mutex::new(MOST_MOVES));
        Budget { one, left, moves, overrun: OnceLock::new() }
    }

    /// Takes `moves` moves of elements off the budget, if so many are left; returns whether they
    /// were. A border that is refused leaves its moves to smaller ones.
    pub fn spend_moves(&self, moves: usize) -> bool {
        let mut left = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = left.checked_sub(moves).filter(|_| moves <= MOST_MOVES_OF_ONE);
        rest.map(|rest| *left = rest).is_some()
    }

    /// Notes that the engine failed at `what`, if another machine might have succeeded: the run
    /// then has no result.
    pub fn note(&self, error: &EngineError, what: impl FnOnce() -> String) {
        if error.is_of_this_machine() {
            self.overrun.get_or_init(|| (what(), error.clone()));
        }
    }

    /// Returns the first computation that the engine did not finish, and why.
    pub fn overrun(&self) -> Option<&(String, EngineError)> {
        self.overrun.get()
    }

    /// Whether one constant may take `estimate`.
    pub fn allows(&self, estimate: Estimate) -> bool {
        estimate.elements <= self.one.elements && estimate.work <= self.one.work
    }

    /// Takes `estimate` off the budget, if it is not too much; returns whether it was taken.
    pub fn spend(&self, estimate: Estimate) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = Estimate {
            elements: left.elements.saturating_sub(estimate.elements),
            work: left.work.saturating_sub(estimate.work),
        };
        let fits = self.allows(estimate) && rest.elements >= 0 && rest.work >= 0;
        if fits {
            *left = rest;
        }
        fits
    }
}

impl Estimate {
    /// Returns the estimate of a tensor that is written out.
    pub fn of_dims(dims: &[i64]) -> Self {
        let elements = product(dims.iter().copied());
        Estimate { elements, work: elements }
    }

    /// Returns the estimate of a tensor of requested sizes: a negative size is a huge one for
    /// whoever takes it as unsigned.
    pub fn of_sizes(sizes: &[i64]) -> Self {
        let huge = |&size: &i64| if size < 0 { i64::MAX } else { size };
        Self::of_dims(&sizes.iter().map(huge).collect::<Vec<_>>())
    }

    /// Returns the estimate, raised to at least `count` elements and multiply-adds.
    pub fn at_least(self, count: i64) -> Self {
        Estimate { elements: self.elements.max(count), work: self.work.max(count) }
    }

    /// Returns `factor` times the estimate.
    pub fn times(self, factor: i64) -> Self {
        Estimate {
            elements: self.elements.saturating_mul(factor),
            work: self.work.saturating_mul(factor),
        }
    }
}

/// Returns how many elements these sizes make. No size counts as less than 1, so that a 0 hides
/// nothing.
pub fn product(sizes: impl Iterator<Item = i64>) -> i64 {
    sizes.fold(1, |product, size| product.saturating_mul(size.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_spent_once() {
        let budget = |bytes| Budget::new(bytes);
        for (bytes, largest, times) in [
            (0, 1 << 22, 4),
            (1000, (1 << 22) + 1000, 4),
            (1 << 25, (1 << 22) + (1 << 25), 7),
            (1 << 27, 1 << 26, 8),
            (usize::MAX, 1 << 26, 8),
        ] {
            let budget = budget(bytes);
            let spent = (0..20).filter(|_| budget.spend(Estimate::of_dims(&[largest]))).count();
            assert_eq!(spent, times, "{bytes}");
            assert!(!Budget::new(bytes).spend(Estimate::of_dims(&[largest + 1])), "{bytes}");
        }
        assert!(!budget(usize::MAX).spend(Estimate::of_dims(&[i64::MAX, 0, i64::MAX])));
        for (bytes, times) in [(0, 4), (1 << 26, 4), (1 << 27, 8), (usize::MAX, 16)] {
            let budget = budget(bytes);
            let kernel = Estimate { elements: 1, work: 1 << 33 };
            let spent = (0..20).filter(|_| budget.spend(kernel)).count();
            assert_eq!(spent, times, "{bytes}");
        }
    }
}
