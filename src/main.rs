//! Arguments in, exit code out; everything else is in the library.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::string_slice))]

mod cli;

use std::io::{self, Write};
use std::process::ExitCode;

use acb_fuse::onnx::staged::remove_staged;
use acb_fuse::report::target::Target;
use acb_fuse::report::{self, text};
use acb_fuse::{Endpoint, Error, reported};
use clap::{CommandFactory, Parser};
use cli::arguments::Arguments;
use cli::many::{self, Job};
use cli::show::{has_colours, printable};

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
    let jobs = jobs(&arguments);
    let jobs = jobs.and_then(|jobs| arguments.check_reports(jobs.is_some()).map(|()| jobs));
    match jobs {
        Err(wrong) => said(&wrong, USAGE),
        Ok(Some(jobs)) => ended(many(&arguments, &jobs)),
        Ok(None) => ended(one(&arguments)),
    }
}

fn ended(result: Result<ExitCode, Error>) -> ExitCode {
    result.unwrap_or_else(|error| said(&error.to_string(), error.exit_code()))
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

fn one(arguments: &Arguments) -> Result<ExitCode, Error> {
    let mut places = arguments.files.iter().map(|file| Endpoint::of(file));
    let (Some(input), output) = (places.next(), places.next()) else {
        return Ok(ExitCode::SUCCESS);
    };
    arguments.report.iter().try_for_each(Target::check)?;
    let (mut report, mut result) = reported(&input, output.as_ref(), &arguments.options());
    if result.is_ok() && !arguments.quiet {
        let colours = |of_stream| of_stream && !arguments.no_color;
        let shown = |colours| {
            let mut shown = printable(&report.to_string(), |c| c == '\n');
            if arguments.verbose {
                shown.push_str(&text::averages(&report, colours));
            }
            shown
        };
        // The model or the report itself may go to standard output.
        let taken = output == Some(Endpoint::Pipe) || arguments.report.contains(&Target::Pipe);
        let _ = match taken {
            true => write!(io::stderr(), "{}", shown(colours(has_colours(&io::stderr())))),
            false => write!(io::stdout(), "{}", shown(colours(has_colours(&io::stdout())))),
        };
    }
    let (blocks, converted) = (report.blocks.len(), report.notes.converted_nodes.len());
    if result.is_ok() && arguments.check && (blocks > 0 || converted > 0) {
        let file = report.input.path.clone();
        let fusable = Error::Fusable { file, blocks, converted };
        report.fail(&fusable);
        result = Err(fusable);
    }
    let written = arguments.report.iter().try_for_each(|target| target.write(&report));
    result.and(written).map(|()| ExitCode::SUCCESS)
}

fn many(arguments: &Arguments, jobs: &[Job]) -> Result<ExitCode, Error> {
    let mut options = arguments.options();
    // Their bars would write over each other.
    options.progress = |_, _, _| {};
    let work = |out: &mut dyn Write| {
        let mut written = Ok(());
        let failure = many::work(jobs, arguments.jobs, &options, |job, report, result| {
            if !arguments.quiet || result.is_err() {
                let line = printable(&many::line(job, report, result), |_| false);
                let _ = writeln!(io::stdout(), "{line}");
            }
            if written.is_ok() {
                written = out.write_all(report::json_line(report).as_bytes());
            }
        });
        written.map(|()| failure)
    };
    let failure = match arguments.report.first() {
        Some(target) => target.write_lines(work)?,
        None => work(&mut io::sink()).ok().flatten(),
    };
    Ok(failure.map_or(ExitCode::SUCCESS, |error| ExitCode::from(error.exit_code())))
}
