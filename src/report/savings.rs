//! What the blocks save, and which of them save most.
//!
//! Knows blocks and their costs; does not know how savings are shown.

use crate::report::BlockReport;

/// The savings of the blocks of a model.
#[derive(Debug)]
pub struct Savings<'r> {
    /// The quantity that is counted.
    pub of: Saved,
    /// Each block and how much it saves, the largest saving first.
    pub blocks: Vec<(&'r BlockReport, f64)>,
    /// The sum of all savings.
    pub all: f64,
}

/// The quantity in which savings are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// Multiply-adds of a run of the whole model.
    MultiplyAdds,
    /// Parameters: the number of positions of some block is not known.
    Parameters,
}

impl<'r> Savings<'r> {
    /// Counts the savings of `blocks` in multiply-adds if these are known for each of them, else
    /// in parameters.
    pub fn of(blocks: &'r [BlockReport]) -> Self {
        let known: Option<Vec<_>> =
            blocks.iter().map(|block| Some((block, block.saved_multiply_adds()?))).collect();
        let (of, mut blocks) = match known {
            Some(known) => (Saved::MultiplyAdds, known),
            None => {
                let saved = |block: &'r BlockReport| (block, block.saved_parameters());
                (Saved::Parameters, blocks.iter().map(saved).collect())
            }
        };
        blocks.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let all = blocks.iter().map(|(_, saved)| saved).sum();
        Savings { of, blocks, all }
    }
}

impl BlockReport {
    /// Returns the multiply-adds that the block saves in a run; `None` if a size is not known.
    pub(crate) fn saved_multiply_adds(&self) -> Option<f64> {
        let (before, after) = (&self.before, &self.after);
        let each = before.multiply_adds_per_position - after.multiply_adds_per_position;
        Some(each * self.positions?)
    }

    /// Returns the parameters that the block saves; negative if it needs more.
    fn saved_parameters(&self) -> f64 {
        self.before.parameters as f64 - self.after.parameters as f64
    }
}
