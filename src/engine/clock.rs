//! Time in which this process ran: what a watchdog may measure.
//!
//! A wall clock goes on while a process is stopped, and whoever was stopped for longer
//! than a limit would find it exceeded without having worked. This one is advanced by a
//! thread of the process itself, in small beats. Stopped, the process loses the beats;
//! however long it stood, one beat counts at most [`LONGEST`].
//!
//! Knows neither tract nor what is measured.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often the clock is advanced.
pub(super) const BEAT: Duration = Duration::from_millis(20);

/// A beat is rarely late by more than the processor's other work makes it.
const LONGEST: Duration = Duration::from_millis(100);

/// Nanoseconds; 585 years fit.
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

/// Counts a beat after so much time on the wall.
fn advance(elapsed: Duration) {
    let counted = u64::try_from(elapsed.min(LONGEST).as_nanos()).unwrap_or(u64::MAX);
    NOW.fetch_add(counted, Ordering::Relaxed);
}

/// How long the process ran since this was first asked, its stops left out; `None` if there is
/// no thread to tell, and then nothing may be limited by time.
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
