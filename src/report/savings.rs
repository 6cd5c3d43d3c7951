//! What blocks save, and which of them save most.
//!
//! Knows blocks and what they cost; not how that is shown.

use crate::report::BlockReport;

/// What the blocks of a model save, the most first.
#[derive(Debug)]
pub struct Savings<'r> {
    /// What is counted.
    pub of: Saved,
    /// Each block and how much it saves.
    pub blocks: Vec<(&'r BlockReport, f64)>,
    /// How much all of them save together.
    pub all: f64,
}

/// What blocks save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// Multiply-adds of the whole model's run.
    MultiplyAdds,
    /// Parameters, where it is not known of how many positions a run is.
    Parameters,
}

impl<'r> Savings<'r> {
    /// Of all `blocks`: in multiply-adds, if these are known of each; else in parameters.
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
    /// Multiply-adds that it saves in a run; `None` if a size is not known.
    pub(crate) fn saved_multiply_adds(&self) -> Option<f64> {
        let (before, after) = (&self.before, &self.after);
        let each = before.multiply_adds_per_position - after.multiply_adds_per_position;
        Some(each * self.positions?)
    }

    /// Parameters that it saves; negative if it needs more.
    fn saved_parameters(&self) -> f64 {
        self.before.parameters as f64 - self.after.parameters as f64
    }
}
