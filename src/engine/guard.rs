//! Runs tract in threads of its own, so that a panic or an endless loop there is an error here.
//!
//! Knows the limits, and nothing of the work that is done.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel, sync_channel};
use std::{io, thread};

use tract_onnx::prelude::TractResult;

use crate::engine::clock::BEAT;
use crate::engine::limits::{EngineError, Limits};

/// The name of the threads that tract works in.
const THREAD: &str = "tract";

/// Stack size of these threads in bytes: ample for the deepest models; only what is used is
/// allocated.
const STACK: usize = 64 << 20;

type GuardedJob = Box<dyn FnOnce() + Send>;

thread_local! {
    /// Sends jobs to the thread that works for the current one. It is kept here between two
    /// jobs.
    static WORKER: Cell<Option<Sender<GuardedJob>>> = const { Cell::new(None) };
}

/// Runs `work`, which calls tract, in another thread. A panic there is an error here; a thread
/// that does not finish in time is abandoned.
pub fn guarded<T: Send + 'static>(
    limits: Limits,
    work: impl FnOnce() -> TractResult<T> + Send + 'static,
) -> Result<T, EngineError> {
    if limits.are_over() {
        return Err(EngineError::TooLong);
    }
    let (done, outcome) = sync_channel(1);
    let job: GuardedJob = Box::new(move || drop(done.send(catch_unwind(AssertUnwindSafe(work)))));
    let worker = WORKER.take().map_or_else(started, Ok);
    let worker = worker.map_err(|error| EngineError::Failed(error.to_string()))?;
    // If the worker has ended, this fails, and the loop below finds the channel disconnected.
    drop(worker.send(job));
    let outcome = loop {
        match outcome.recv_timeout(BEAT) {
            Err(RecvTimeoutError::Timeout) if !limits.are_over() => {}
            other => break other,
        }
    };
    if outcome.is_ok() {
        WORKER.set(Some(worker));
    }
    match outcome {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(EngineError::Failed(in_one_line(&format!("{error:#}")))),
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(EngineError::Panicked(in_one_line(&text.unwrap_or_default())))
        }
        Err(RecvTimeoutError::Timeout) => Err(EngineError::TooLong),
        Err(RecvTimeoutError::Disconnected) => {
            Err(EngineError::Failed("its thread ended without a result".to_owned()))
        }
    }
}

/// Starts a new worker thread, which ends when its sender is dropped.
fn started() -> io::Result<Sender<GuardedJob>> {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if thread::current().name() != Some(THREAD) {
                report(panic);
            }
        }));
    });
    let (give, take) = channel::<GuardedJob>();
    let worker = thread::Builder::new().name(THREAD.to_owned()).stack_size(STACK);
    worker.spawn(move || take.into_iter().for_each(|job| job()))?;
    Ok(give)
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<&str>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_takes_too_long_or_panics_is_an_error() {
        let limits = |milliseconds| Limits::new(Duration::from_millis(milliseconds), 1);
        let endless = guarded(limits(20), || {
            loop {
                thread::park();
            }
        });
        assert_eq!(endless, Err::<(), _>(EngineError::TooLong));
        let panics = guarded(limits(60_000), || -> TractResult<()> { panic!("no\nway") });
        assert_eq!(panics, Err(EngineError::Panicked("no way".to_owned())));
        assert_eq!(guarded(limits(60_000), || Ok(3)), Ok(3));
    }
}
