//! `--timeout`: ends the process when its time is over, whatever it is doing.
//!
//! The watchdog is a thread that waits for no other thread: these may hang in the engine, in a
//! system call or in a pipe that nobody reads. Staged files are removed as in a process that is
//! told to end.
//!
//! Knows the process; does not know what it does.

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use acb_fuse::{remove_staged, running_time};

use super::exit::{Exit, Targets};
use super::show::Screen;
use super::stage::stage;

/// The interval at which the clock is read.
const BEAT: Duration = Duration::from_millis(20);

/// How long the message may wait if standard error is full.
const TO_SAY_IT: Duration = Duration::from_secs(1);

/// Ends the process after `seconds` of running time, in which stops do not count, with a message
/// on `screen`.
///
/// # Errors
/// Returns an error if the system has no clock or thread for this, since nothing would end the
/// process then.
pub fn begin(seconds: u64, targets: Targets, screen: Screen) -> Result<(), Exit> {
    let none = || Exit::of_usage("--timeout: the system gives no thread to measure time".into());
    let begun = running_time().ok_or_else(none)?;
    let until = begun.saturating_add(Duration::from_secs(seconds));
    let watch = move || {
        while running_time().is_some_and(|now| now < until) {
            thread::sleep(BEAT);
        }
        end(seconds, targets, &screen);
    };
    let watchdog = thread::Builder::new().name("timeout".to_owned());
    watchdog.spawn(watch).map(drop).map_err(|_| none())
}

fn end(seconds: u64, targets: Targets, screen: &Screen) -> ! {
    remove_staged();
    let exit = Exit::of_time(seconds, stage(), targets);
    let code = exit.code;
    let (done, said) = sync_channel(1);
    // A thread that holds standard error may wait for its reader forever.
    let screen = *screen;
    let say = move || done.send(exit.say(&screen));
    if thread::Builder::new().spawn(say).is_ok() {
        let _ = said.recv_timeout(TO_SAY_IT);
    }
    std::process::exit(code.into())
}
