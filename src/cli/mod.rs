//! The command line: reads what is asked for, has it done for one model or many, and prints the
//! result.
//!
//! Knows the public interface of the library; flags, exit codes, the terminal and the process
//! are known here alone.

pub mod arguments;
mod exit;
mod folders;
pub mod help;
mod lines;
mod many;
mod matrix;
mod npy;
mod one;
mod pages;
mod places;
mod show;
mod stage;
mod tensors;
mod watchdog;
mod wrap;

use std::io::{self, Write};
use std::process::ExitCode;

use acb_fuse::remove_staged;
use arguments::{Arguments, MOST_THREADS};
use exit::{Exit, INTERRUPTED, Targets};
use show::Screen;

/// Carries out the command, and prints an error if it fails.
pub fn carry_out(arguments: &Arguments) -> ExitCode {
    if let Some(shell) = arguments.completions {
        // A reader may close the pipe before the end, which is no failure.
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut help::manual(), "acb-fuse", &mut text);
        let _ = io::stdout().write_all(&text);
        return ExitCode::SUCCESS;
    }
    if arguments.man {
        return match help::write_manual_page(&mut io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    // A process that is told to end removes its temporary files.
    let _ = ctrlc::set_handler(|| {
        remove_staged();
        std::process::exit(INTERRUPTED);
    });
    let goes_to_many = arguments.out_dir.is_some() || arguments.manifest.is_some();
    let targets = if goes_to_many { Targets::Many } else { Targets::One };
    let screen = Screen::stderr(arguments.no_color);
    let begin = |seconds| watchdog::begin(seconds, targets, screen);
    let begun = arguments.timeout.map_or(Ok(()), begin);
    let started = begun.and_then(|()| start_threads(arguments));
    started.and_then(|()| fuse(arguments)).unwrap_or_else(|exit| exit.say(&screen))
}

/// The environment variable that sets the number of threads if no flag does.
const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

/// Starts the threads on which blocks are fused.
fn start_threads(arguments: &Arguments) -> Result<(), Exit> {
    let of_environment = || std::env::var(THREADS_VARIABLE).ok()?.parse().ok();
    let threads = arguments.threads.or_else(of_environment).unwrap_or_default();
    if threads > MOST_THREADS {
        let most = format!("{THREADS_VARIABLE}: a number from 1 to {MOST_THREADS}");
        return Err(Exit::of_usage(most));
    }
    // Nothing has run in parallel yet, so the global pool is not built yet.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    let fewer = "cannot start that many threads; give a smaller --threads";
    pool.map_err(|error| Exit::of_usage(format!("{fewer}: {error}")))
}

fn fuse(arguments: &Arguments) -> Result<ExitCode, Exit> {
    let jobs = many::jobs(arguments)?;
    arguments.check_reports(jobs.is_some()).map_err(Exit::of_usage)?;
    match jobs {
        Some(jobs) => many::many(arguments, &jobs),
        None => one::one(arguments).map(|()| ExitCode::SUCCESS),
    }
}
