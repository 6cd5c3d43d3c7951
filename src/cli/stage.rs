//! The stage that the work has reached, in one word.
//!
//! Knows stages; does not know who asks for them.

use std::sync::atomic::{AtomicU8, Ordering};

use acb_fuse::Progress;

/// The words for the stages, by the number in [`STAGE`].
const STAGES: [&str; 7] =
    ["beginning", "reading", "planning", "proving", "running", "writing", "equalizing"];

/// The number of the stage that began last, of any model.
static STAGE: AtomicU8 = AtomicU8::new(0);

/// Records the stage that a conversion has reached.
pub fn note(progress: Progress) {
    let stage = match progress {
        Progress::Reading => 1,
        Progress::Planning => 2,
        Progress::Proving { .. } => 3,
        Progress::Running => 4,
        Progress::Writing => 5,
        Progress::Equalizing => 6,
        _ => return,
    };
    STAGE.store(stage, Ordering::Relaxed);
}

/// Returns the word for the recorded stage.
pub fn stage() -> &'static str {
    let stage = usize::from(STAGE.load(Ordering::Relaxed));
    STAGES.get(stage).copied().unwrap_or("working")
}
