//! Arguments in, exit code out; everything else is in the library.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::string_slice))]

mod cli;

use std::io::{self, Write};
use std::process::ExitCode;

use acb_fuse::onnx::output::remove_staged;
use acb_fuse::{Error, Place, convert};
use clap::{CommandFactory, Parser};
use cli::arguments::Arguments;
use cli::many::{self, Job};
use cli::show::printable;

/// As shells have it for a process that was interrupted.
const INTERRUPTED: i32 = 130;

/// What was asked for makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(shell) = arguments.completions {
        clap_complete::generate(shell, &mut Arguments::command(), "acb-fuse", &mut io::stdout());
        return ExitCode::SUCCESS;
    }
    if arguments.man {
        return match clap_mangen::Man::new(Arguments::command()).render(&mut io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    // Told to end, the process takes its temporary files away.
    let _ = ctrlc::set_handler(|| {
        remove_staged();
        std::process::exit(INTERRUPTED);
    });
    if let Some(threads) = arguments.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        // Nothing was done in parallel yet, so nobody has built it.
        let _ = pool.build_global();
    }
    match jobs(&arguments) {
        Err(wrong) => said(&wrong, USAGE),
        Ok(Some(jobs)) => many(&arguments, &jobs),
        Ok(None) => match one(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => said(&error.to_string(), error.exit_code()),
        },
    }
}

fn said(error: &str, exit_code: u8) -> ExitCode {
    eprintln!("acb-fuse: {}", printable(error, |_| false));
    ExitCode::from(exit_code)
}

/// The models, if they are many; an error if the arguments do not fit each other.
fn jobs(arguments: &Arguments) -> Result<Option<Vec<Job>>, String> {
    match (&arguments.out_dir, &arguments.manifest, arguments.files.as_slice()) {
        (Some(folder), ..) => many::into_folder(&arguments.files, folder).map(Some),
        (_, Some(manifest), _) => many::of_manifest(manifest).map(Some),
        (.., [_, _, _, ..]) => Err("more than IN and OUT; for many models see --out-dir".into()),
        (.., [_, _]) if arguments.check => Err("--check only looks, and takes no OUT".into()),
        (.., [_]) if arguments.no_clobber => Err("--no-clobber without OUT has no effect".into()),
        _ => Ok(None),
    }
}

fn one(arguments: &Arguments) -> Result<(), Error> {
    let mut places = arguments.files.iter().map(|file| Place::of(file));
    let (Some(input), output) = (places.next(), places.next()) else { return Ok(()) };
    let report = convert(&input, output.as_ref(), &arguments.options())?;
    if !arguments.quiet {
        // The model itself may go to standard output.
        let text = printable(&report.to_string(), |c| c == '\n');
        let _ = match output {
            Some(Place::Pipe) => write!(io::stderr(), "{text}"),
            _ => write!(io::stdout(), "{text}"),
        };
    }
    match report.blocks.len() {
        blocks if blocks > 0 && arguments.check => {
            Err(Error::Fusable { file: report.file, blocks })
        }
        _ => Ok(()),
    }
}

fn many(arguments: &Arguments, jobs: &[Job]) -> ExitCode {
    let mut options = arguments.options();
    // Their bars would write over each other.
    options.progress = |_, _, _| {};
    let failure = many::work(jobs, arguments.jobs, &options, |job, result| {
        if !arguments.quiet || result.is_err() {
            let line = printable(&many::line(job, result), |_| false);
            let _ = writeln!(io::stdout(), "{line}");
        }
    });
    failure.map_or(ExitCode::SUCCESS, |error| ExitCode::from(error.exit_code()))
}
