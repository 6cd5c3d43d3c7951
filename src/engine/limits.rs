//! The resources that the engine may take, and how it fails: with an [`EngineError`], whatever
//! happened inside it.
//!
//! Knows the clock of the process and nothing of tract.

use std::time::Duration;

use crate::engine::clock;
use crate::setting::Setting;

/// The reason why tract did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// tract failed for the reason that this text gives.
    #[error("tract: {0}")]
    Failed(String),
    /// tract was not asked, because it would read a node wrongly, as this text says.
    #[error("{0}")]
    Misread(String),
    /// tract panicked with this message.
    #[error("tract: it panicked: {0}")]
    Panicked(String),
    /// A maximum or minimum would hide a NaN.
    #[error("a value is NaN")]
    NotANumber,
    /// tract did not end in time and was abandoned.
    #[error("tract did not end in time ({} allows more)", Setting::TimeLimit)]
    TooLong,
    /// The model was not run: its tensors take more than the memory limit allows.
    #[error(
        "its tensors would take {} MiB at a time ({} allows more)",
        bytes >> 20,
        Setting::MemoryLimit
    )]
    TooLarge {
        /// The number of bytes needed, at least.
        bytes: usize,
    },
    /// The model was not run: its tensors take more than the system grants this process.
    #[error(
        "its tensors would take {} MiB at a time, and this process may take {} MiB more",
        bytes >> 20,
        left >> 20
    )]
    NoMemory {
        /// The number of bytes needed, at least.
        bytes: usize,
        /// The number of bytes that this process may still take.
        left: usize,
    },
}

impl EngineError {
    /// Returns the setting that raises the limit which was met, if the caller has one.
    pub fn setting(&self) -> Option<Setting> {
        match self {
            EngineError::TooLong => Some(Setting::TimeLimit),
            EngineError::TooLarge { .. } => Some(Setting::MemoryLimit),
            _ => None,
        }
    }

    /// Whether another machine might have succeeded. What depends on such an outcome has no
    /// result.
    pub fn is_of_this_machine(&self) -> bool {
        matches!(self, EngineError::TooLong | EngineError::NoMemory { .. })
    }
}

/// The time and memory that the engine may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The deadline, by the clock of the process; `None` if there is none.
    pub until: Option<Duration>,
    /// Upper bound on the bytes of the tensors that are held at the same time.
    pub bytes: usize,
}

impl Limits {
    /// Returns limits of `time` from now on, in which time the process is stopped does not
    /// count, and of `bytes` of memory.
    pub fn new(time: Duration, bytes: usize) -> Self {
        // An overflow of the clock is as good as no deadline.
        let until = clock::running_time().and_then(|now| now.checked_add(time));
        Limits { until, bytes }
    }

    /// Returns the limits for reading a model: constant sub-graphs, sizes, borders. How much of
    /// these is tried is counted before the engine is asked, so that every machine finds the
    /// same, and what is allowed takes seconds. A call that has not ended long after that has
    /// met an endless loop of the engine. The run then ends in an error, rather than in a
    /// different file.
    pub fn of_reading() -> Self {
        Limits::new(Duration::from_secs(900), 4 << 30)
    }

    /// Whether the deadline has passed.
    pub(super) fn are_over(self) -> bool {
        self.until.zip(clock::running_time()).is_some_and(|(until, now)| now >= until)
    }
}
