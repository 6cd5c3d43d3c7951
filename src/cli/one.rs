//! One model: what was done with it is shown, and written as reports.
//!
//! Knows where output goes, and not what a report says.

use std::io::{self, Write};

use acb_fuse::Endpoint;
use acb_fuse::report::Report;
use acb_fuse::report::target::Target;
use acb_fuse::report::text::NOT_VERIFIED;

use super::arguments::Arguments;
use super::exit::{Exit, converted};
use super::matrix::{averages, averages_in_colours};
use super::places::{self, unwritten};
use super::show::{has_colours, printable};

/// Looks at the model, or converts it.
///
/// # Errors
/// How the process ends, if not well.
pub fn one(arguments: &Arguments) -> Result<(), Exit> {
    let mut places = arguments.files.iter().map(|file| places::endpoint(file));
    let (Some(input), output) = (places.next(), places.next()) else { return Ok(()) };
    for target in &arguments.report {
        target.check().map_err(|source| unwritten(target, source))?;
    }
    let options = arguments.options()?;
    let (mut report, mut result) = converted(&input, output.as_ref(), &options);
    if result.as_ref().is_err_and(|exit| exit.spares_reports) {
        return result;
    }
    if result.is_ok() && !arguments.quiet {
        // The model or the report itself may go to standard output.
        let taken = output == Some(Endpoint::Pipe) || arguments.report.contains(&Target::Pipe);
        let colours = |of_stream| of_stream && !arguments.no_color;
        let _ = if taken {
            let shown = summary(&report, arguments, colours(has_colours(&io::stderr())));
            write!(io::stderr(), "{shown}")
        } else {
            let shown = summary(&report, arguments, colours(has_colours(&io::stdout())));
            write!(io::stdout(), "{shown}")
        };
    }
    let (blocks, nodes) = (report.blocks.len(), report.notes.converted_nodes.len());
    if result.is_ok() && arguments.check && (blocks > 0 || nodes > 0) {
        let exit = Exit::of_check(&report.input.path, blocks, nodes);
        report.error = Some(exit.reported());
        result = Err(exit);
    }
    let write = |target: &Target| target.write(&report).map_err(|source| unwritten(target, source));
    let written = arguments.report.iter().try_for_each(write);
    result.and(written.map_err(Exit::from))
}

/// What is shown of a conversion that came to its end.
fn summary(report: &Report, arguments: &Arguments, colours: bool) -> String {
    let mut told = if arguments.verbose { format!("{report:#}") } else { report.to_string() };
    if let Some(above) = told.strip_suffix(NOT_VERIFIED) {
        told = format!("{above}{}: --no-verify was given\n", NOT_VERIFIED.trim_end());
    }
    let mut shown = printable(&told, |c| c == '\n');
    if arguments.verbose {
        let averages = if colours { averages_in_colours } else { averages };
        shown.push_str(&averages(report));
    }
    shown
}
