//! One model: converts it, prints the summary, and writes the reports.
//!
//! Knows where output goes; does not know what a report says.

use std::io::{self, Write};

use acb_fuse::Endpoint;
use acb_fuse::report::Report;
use acb_fuse::report::html::Origin;
use acb_fuse::report::target::Target;
use acb_fuse::report::text::{Line, SummaryLayout, Tone};

use super::arguments::Arguments;
use super::exit::{Exit, checked, converted};
use super::matrix::{averages, averages_in_colours};
use super::places::{self, unwritten};
use super::show::{self, Screen};

/// Looks at the model, or converts it.
///
/// # Errors
/// Returns the message and exit code of a command that fails.
pub fn one(arguments: &Arguments) -> Result<(), Exit> {
    let Some(input) = arguments.files.first() else { return Ok(()) };
    let input = places::endpoint(input);
    let output = arguments.place().map(|place| places::endpoint(place));
    for target in &arguments.report {
        target.check().map_err(|source| unwritten(target, source))?;
    }
    let options = arguments.options()?;
    let (mut report, mut result) = converted(&input, output.as_ref(), &options);
    show::progress_ends();
    if result.as_ref().is_err_and(|exit| exit.spares_reports) {
        return result;
    }
    if result.is_ok() && !arguments.quiet {
        // If the model or a report goes to standard output, the summary goes to standard error.
        let taken = output == Some(Endpoint::Pipe) || arguments.report.contains(&Target::Pipe);
        let _ = if taken {
            let screen = Screen::stderr(arguments.no_color);
            write!(io::stderr(), "{}", summary(&report, arguments, &screen))
        } else {
            let screen = Screen::stdout(arguments.no_color);
            write!(io::stdout(), "{}", summary(&report, arguments, &screen))
        };
    }
    if arguments.check {
        (report, result) = checked((report, result));
    }
    let origin = Origin::now(show::command());
    let write = |target: &Target| {
        target.write(&report, &origin).map_err(|source| unwritten(target, source))
    };
    let written = arguments.report.iter().try_for_each(write);
    result.and(written.map_err(Exit::from))
}

/// Returns the summary of a conversion that did not fail.
fn summary(report: &Report, arguments: &Arguments, screen: &Screen) -> String {
    let mut shown = String::new();
    let mut show = |tone: Tone, text: &str| {
        shown.push_str(&screen.line(tone, text));
        shown.push('\n');
    };
    let layout = SummaryLayout::of(screen.width, arguments.verbose);
    for Line { tone, text, .. } in report.lines(layout) {
        match tone {
            Tone::NotVerified => show(tone, &format!("{text}: --no-verify was given")),
            _ => show(tone, &text),
        }
        if let Some(help) = what_to_do(tone) {
            show(Tone::Plain, &format!("  what to do: {help}"));
        }
    }
    if arguments.place().is_none() && arguments.scaling().is_some() {
        show(Tone::Plain, "channels are scaled only when a model is written: give OUT");
    }
    if arguments.verbose {
        let averages = if screen.colours { averages_in_colours } else { averages };
        shown.push_str(&averages(report));
    }
    shown
}

/// Returns what a user can do if a check is missing.
fn what_to_do(tone: Tone) -> Option<&'static str> {
    match tone {
        Tone::NotVerified => Some(
            "run it again without --no-verify, or compare the outputs of both models on your own \
             data before you use the new one",
        ),
        Tone::NotRun => Some(
            "compare the outputs of both models on your own data before you use the new one, or run \
             it again with other inputs (--input x=image.npy) or sizes (--input-shape); with \
             --require-run, this is an error",
        ),
        _ => None,
    }
}
