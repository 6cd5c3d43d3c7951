//! How far the work is, in a word.
//!
//! Knows stages; not who asks for them.

use std::sync::atomic::{AtomicU8, Ordering};

use acb_fuse::Progress;

/// What is done at a time: its number stands in [`STAGE`].
const STAGES: [&str; 7] =
    ["beginning", "reading", "planning", "proving", "running", "writing", "equalizing"];

/// The stage that began last, of whichever model.
static STAGE: AtomicU8 = AtomicU8::new(0);

/// Notes how far a conversion is.
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

/// That stage.
pub fn stage() -> &'static str {
    let stage = usize::from(STAGE.load(Ordering::Relaxed));
    STAGES.get(stage).copied().unwrap_or("working")
}
