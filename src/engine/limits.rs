//! What the engine may take, and how it fails: an [`EngineError`] whatever happened inside it.
//!
//! Knows the clock of the process and nothing of tract.

use std::time::Duration;

use crate::engine::clock;
use crate::setting::Setting;

/// Why tract could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// It says why.
    #[error("tract: {0}")]
    Failed(String),
    /// It was not asked: it would read a node wrongly.
    #[error("{0}")]
    Misread(String),
    /// It panicked.
    #[error("tract: it panicked: {0}")]
    Panicked(String),
    /// It takes a maximum of what is no number.
    #[error("a value is NaN")]
    NotANumber,
    /// It was given up.
    #[error("tract did not end in time ({} allows more)", Setting::TimeLimit)]
    TooLong,
    /// It was not even tried.
    #[error(
        "its tensors would take {} MiB at a time ({} allows more)",
        bytes >> 20,
        Setting::MemoryLimit
    )]
    TooLarge {
        /// What is needed, at least.
        bytes: usize,
    },
    /// It was not even tried.
    #[error(
        "its tensors would take {} MiB at a time, and this process may take {} MiB more",
        bytes >> 20,
        left >> 20
    )]
    NoMemory {
        /// What is needed, at least.
        bytes: usize,
        /// What the system allows this process still.
        left: usize,
    },
}

impl EngineError {
    /// The choice of the caller that allows more, if a limit was met.
    pub fn setting(&self) -> Option<Setting> {
        match self {
            EngineError::TooLong => Some(Setting::TimeLimit),
            EngineError::TooLarge { .. } => Some(Setting::MemoryLimit),
            _ => None,
        }
    }

    /// Whether another machine might have done it: of what is decided by this, there is no
    /// result.
    pub fn is_of_this_machine(&self) -> bool {
        matches!(self, EngineError::TooLong | EngineError::NoMemory { .. })
    }
}

/// What the engine may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// When it has to be done, by the clock of the process; `None` if that is never.
    pub until: Option<Duration>,
    /// Bytes of the tensors that it holds at a time.
    pub bytes: usize,
}

impl Limits {
    /// From now on, so much time in which the process runs: what it stood still does not
    /// count.
    pub fn new(time: Duration, bytes: usize) -> Self {
        // A time that no clock shows is as good as never.
        let until = clock::running_time().and_then(|now| now.checked_add(time));
        Limits { until, bytes }
    }

    /// For reading a model: constant sub-graphs, sizes, borders. How much of these is
    /// tried is counted before the engine is asked, so that every machine knows the same;
    /// what is allowed takes seconds. Whoever does not end long after that has met a loop
    /// of the engine's, and the run ends in an error: not in another file.
    pub fn of_reading() -> Self {
        Limits::new(Duration::from_secs(900), 4 << 30)
    }

    /// Whether the time is over.
    pub(super) fn are_over(self) -> bool {
        self.until.zip(clock::running_time()).is_some_and(|(until, now)| now >= until)
    }
}
