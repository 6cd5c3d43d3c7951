//! `--timeout`: ends the process when its time is over, whatever it is doing.
//!
//! It is a thread that asks nothing of the others: they may hang in the engine, in a system
//! call or in a pipe that nobody reads. What is staged is removed as for a process that is told
//! to end.
//!
//! Knows the process; not what is done.

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use acb_fuse::{remove_staged, running_time};

use super::exit::{Exit, Targets};
use super::show::Screen;
use super::stage::stage;

/// How often the clock is asked.
const BEAT: Duration = Duration::from_millis(20);

/// So long the message may wait for a standard error that is full.
const TO_SAY_IT: Duration = Duration::from_secs(1);

/// Ends the process after so many seconds in which it ran, its stops left out, and says so on
/// `screen`.
///
/// # Errors
/// If there can be no thread to do so: then nothing would end it.
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
    // Whoever holds standard error may wait for a reader for ever.
    let screen = *screen;
    let say = move || done.send(exit.say(&screen));
    if thread::Builder::new().spawn(say).is_ok() {
        let _ = said.recv_timeout(TO_SAY_IT);
    }
    std::process::exit(code.into())
}
