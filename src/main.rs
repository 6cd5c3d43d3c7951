//! Arguments in, exit code out; everything else is in the library.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::string_slice))]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use acb_fuse::engine::InputShapes;
use acb_fuse::onnx::output::{Clobber, remove_staged};
use acb_fuse::onnx::storage::Links;
use acb_fuse::report::file::Target;
use acb_fuse::report::text;
use acb_fuse::{Error, Options, Place, reported};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use indicatif::{ProgressBar, ProgressStyle};

/// Fold the training-time convolution blocks of an ONNX model into single
/// convolutions, and prove that nothing changed.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct Arguments {
    /// The model as exported; `-` is standard input
    input: String,
    /// Where the fused model goes; may be IN, `-` is standard output.
    /// Without it: only look, and say what would be fused, what not and why
    output: Option<String>,
    /// Do not prove the blocks and do not run the models
    #[arg(long)]
    no_verify: bool,
    /// Exit with 7 if the whole model cannot be run
    #[arg(long, conflicts_with = "no_verify")]
    require_run: bool,
    /// Exit with 4 if nothing was fused
    #[arg(long)]
    require_fusion: bool,
    /// Exit with 5 if there is something to fuse; writes nothing
    #[arg(long, conflicts_with = "output")]
    check: bool,
    /// Leave the block of this name alone (may be repeated)
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// Do not fold weights that are also graph inputs, which a caller could override
    #[arg(long)]
    keep_overridable: bool,
    /// Read weights also from side files that are links out of the model's folder, as in
    /// caches whose files are links to where their content lies
    #[arg(long)]
    follow_links: bool,
    /// Do not replace an existing OUT
    #[arg(long, requires = "output")]
    no_clobber: bool,
    /// Fix the shape of a graph input (may be repeated)
    #[arg(long, value_name = "NAME=1,3,224,224", value_parser = shape)]
    input_shape: Vec<(String, Vec<usize>)>,
    /// How many random inputs the whole models are run on
    #[arg(long, default_value_t = 1)]
    samples: usize,
    /// Seed of the random inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Allowed difference of an output, relative to its largest value
    /// [default: 1e-4 for float32, 2e-2 for float16, 1e-9 for float64]
    #[arg(long, value_parser = tolerance)]
    tolerance: Option<f64>,
    /// Seconds that verification may take; what is not run by then is reported as not run
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    verify_timeout: u64,
    /// Memory that the tensors of a run may take, in GiB; what needs more is not run
    #[arg(long, value_name = "GIB", default_value_t = 8)]
    verify_memory: usize,
    /// Write what was done, and how it ended, to a file: FILE.json for programs, FILE.html
    /// for a browser, `-` for JSON on standard output (may be repeated)
    #[arg(long, value_name = "FILE", value_parser = Target::of)]
    report: Vec<Target>,
    /// Print also how large the fused weights are by position
    #[arg(long, short, conflicts_with = "quiet")]
    verbose: bool,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  acb-fuse resnet.onnx                     what would be fused, what not and why
  acb-fuse resnet.onnx deploy.onnx         fuse, verify, write
  acb-fuse resnet.onnx resnet.onnx         the same, in place
  cat resnet.onnx | acb-fuse - - | …       in a pipe

Exit codes:
  0 written (or looked at)   1 invalid model   2 usage   3 verification failed
  4 nothing fused (--require-fusion)   5 something to fuse (--check)
  6 reading or writing failed, trying again may help   7 not run (--require-run)";

/// As shells have it for a process that was interrupted.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(why) = arguments.misplaced_report() {
        Arguments::command().error(ErrorKind::ArgumentConflict, why).exit();
    }
    // Told to end, the process takes its temporary files away.
    let _ = ctrlc::set_handler(|| {
        remove_staged();
        std::process::exit(INTERRUPTED);
    });
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acb-fuse: {}", printable(&error.to_string(), |_| false));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    arguments.report.iter().try_for_each(Target::check)?;
    let output = arguments.output.as_deref().map(Place::of);
    let input = Place::of(&arguments.input);
    let (mut report, mut result) = reported(&input, output.as_ref(), &arguments.options());
    if result.is_ok() && !arguments.quiet {
        // The model or the report itself may go to standard output.
        let taken = output == Some(Place::Pipe) || arguments.report.contains(&Target::Pipe);
        let shown = |colours| {
            let mut shown = printable(&report.to_string(), |c| c == '\n');
            if arguments.verbose {
                shown.push_str(&text::averages(&report, colours));
            }
            shown
        };
        let _ = match taken {
            true => write!(std::io::stderr(), "{}", shown(has_colours(&std::io::stderr()))),
            false => write!(std::io::stdout(), "{}", shown(has_colours(&std::io::stdout()))),
        };
    }
    if result.is_ok() && arguments.check && !report.blocks.is_empty() {
        let (file, blocks) = (report.input.path.clone(), report.blocks.len());
        let fusable = Error::Fusable { file, blocks };
        report.fail(&fusable);
        result = Err(fusable);
    }
    let written = arguments.report.iter().try_for_each(|target| target.write(&report));
    result.and(written)
}

/// Whether colours may be used on `stream`: <https://no-color.org>.
fn has_colours(stream: &impl IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_set("NO_COLOR")
}

/// `text` as it may be shown on a terminal: names in a model are anybody's, and control
/// characters in them are spelled out, except for those that `keep` accepts.
fn printable(text: &str, keep: fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && !keep(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

impl Arguments {
    /// Why a report cannot go where it is to go.
    fn misplaced_report(&self) -> Option<&'static str> {
        let output = self.output.as_deref();
        let is_model = |report: &Target| {
            report.is(&self.input) || output.is_some_and(|output| report.is(output))
        };
        if output == Some("-") && self.report.contains(&Target::Pipe) {
            Some("the model and the report cannot both go to standard output")
        } else if self.report.iter().any(is_model) {
            Some("the report would take the place of a model")
        } else {
            None
        }
    }

    fn options(&self) -> Options {
        Options {
            verify: !self.no_verify,
            keep_overridable: self.keep_overridable,
            skip: self.skip.clone(),
            links: if self.follow_links { Links::Followed } else { Links::Confined },
            clobber: if self.no_clobber { Clobber::Refuse } else { Clobber::Replace },
            require_run: self.require_run,
            require_fusion: self.require_fusion,
            run: acb_fuse::verify::model::Options {
                seed: self.seed,
                samples: self.samples,
                tolerance: self.tolerance,
                shapes: self.input_shape.iter().cloned().collect::<InputShapes>(),
            },
            verify_timeout: Duration::from_secs(self.verify_timeout),
            verify_memory: self.verify_memory.saturating_mul(1 << 30),
            details: self.verbose || !self.report.is_empty(),
            progress: if self.quiet { |_, _, _| {} } else { show_progress },
        }
    }
}

/// A number that a difference can be compared with.
fn tolerance(text: &str) -> Result<f64, String> {
    let finite = text.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0);
    finite.ok_or_else(|| "a tolerance is a number, 0 or more".to_owned())
}

/// `NAME=1,3,224,224`
fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, sizes) = text.rsplit_once('=').ok_or("expected NAME=SIZE,SIZE,…")?;
    let sizes: Result<Vec<usize>, _> = sizes.split(',').map(|size| size.trim().parse()).collect();
    match sizes {
        Ok(sizes) if !sizes.contains(&0) => Ok((name.to_owned(), sizes)),
        _ => Err("sizes are positive whole numbers, separated by commas".to_owned()),
    }
}

/// A bar on a terminal, for work that takes more than a second.
fn show_progress(stage: &str, done: usize, all: usize) {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    static BAR: OnceLock<ProgressBar> = OnceLock::new();
    let started = STARTED.get_or_init(Instant::now);
    if !std::io::stderr().is_terminal() || started.elapsed() < Duration::from_secs(1) {
        return;
    }
    let bar = BAR.get_or_init(|| {
        let bar = ProgressBar::new(all as u64);
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    });
    bar.set_message(stage.to_owned());
    bar.set_length(all as u64);
    bar.set_position(done as u64);
    if stage == "running both models" || done == all {
        bar.finish_and_clear();
    }
}
