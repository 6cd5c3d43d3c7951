//! A clock of the time in which this process ran, for use by a watchdog.
//!
//! A wall clock goes on while a process is stopped: a process that was stopped for longer than a
//! limit would find the limit exceeded without having worked. This clock is advanced by a thread
//! of the process itself, in small beats. While the process is stopped there are no beats, and
//! however long it was stopped, one beat counts at most [`LONGEST`].
//!
//! Knows neither tract nor what is measured.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often the clock is advanced.
pub(super) const BEAT: Duration = Duration::from_millis(20);

/// The most that one beat counts. A beat is rarely later than the processor's other work makes
/// it.
const LONGEST: Duration = Duration::from_millis(100);

/// The time so far in nanoseconds, of which 585 years fit.
static NOW: AtomicU64 = AtomicU64::new(0);

static HEART: LazyLock<bool> = LazyLock::new(|| {
    let beats = || {
        let mut last = Instant::now();
        loop {
            thread::sleep(BEAT);
            let now = Instant::now();
            advance(now.saturating_duration_since(last));
            last = now;
        }
    };
    thread::Builder::new().name("clock".to_owned()).spawn(beats).is_ok()
});

/// Counts one beat, `elapsed` wall-clock time after the previous one.
fn advance(elapsed: Duration) {
    let counted = u64::try_from(elapsed.min(LONGEST).as_nanos()).unwrap_or(u64::MAX);
    NOW.fetch_add(counted, Ordering::Relaxed);
}

/// Returns how long the process has run since the first call, without the time in which it was
/// stopped. Returns `None` if the thread of the clock could not be started; nothing may be
/// limited by time then.
pub fn running_time() -> Option<Duration> {
    HEART.then(|| Duration::from_nanos(NOW.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beat after a stop of an hour counts like any other late one.
    #[test]
    fn a_stop_of_an_hour_is_one_beat() {
        let before = running_time().unwrap();
        advance(Duration::from_secs(3600));
        let after = running_time().unwrap();
        assert!(after >= before + LONGEST && after < before + Duration::from_secs(60));
    }
}
