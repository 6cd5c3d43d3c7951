//! The arguments of the command line, and the library's options that they stand for.
//!
//! Knows flags and their texts; does not know how a model is converted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use acb_fuse::report::target::Target;
use acb_fuse::{Clobber, Equalize, KeepIdentity, Links, Options, TrainingMode, is_same_file};
use clap::Parser;
use clap::builder::{PathBufValueParser, PossibleValuesParser, TypedValueParser};
use clap_complete::Shell;

use super::exit::Exit;
use super::places;
use super::show;
use super::stage;
use super::tensors;

/// Fold the training-time blocks of an ONNX model into single convolutions.
///
/// Every block is proved in float64, both models are run, and only then is the new one
/// written. Without OUT: only look, and say what would be fused, what not, and why.
#[derive(Debug, Parser)]
#[command(version, override_usage = USAGE, after_help = MORE, term_width = 80)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Arguments {
    /// IN, or IN and OUT; `-` is a pipe
    ///
    /// IN is the model as it was exported; the fused model is written to OUT, which may be IN.
    /// `-` is standard input or output. Two names always mean IN and OUT, except with --look,
    /// --check and --out-dir, where all names are models; with --output, the only name is IN.
    #[arg(value_name = "FILE", required_unless_present_any = ["manifest", "completions", "man"])]
    pub files: Vec<PathBuf>,

    /// Where the fused model goes: OUT by name
    #[arg(long, short, value_name = "OUT", help_heading = FILES)]
    #[arg(conflicts_with_all = ["look", "check", "out_dir", "manifest"])]
    pub output: Option<PathBuf>,
    /// Write a report: .json, .html, or `-`
    ///
    /// What was done, and how it ended: FILE.json for programs, FILE.html for a browser, `-`
    /// for JSON on standard output (may be repeated). For many models: FILE.jsonl, with a line
    /// for each, or FILE.html, an index of all with a page for each in FILE.pages.
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    #[arg(value_parser = PathBufValueParser::new().try_map(places::target))]
    pub report: Vec<Target>,
    /// Do not replace an existing OUT
    ///
    /// Without this, OUT is replaced if it is empty or has the same inputs and outputs as IN,
    /// as an earlier result has. If OUT is a link, the link itself is replaced.
    #[arg(long, help_heading = FILES)]
    pub no_clobber: bool,
    /// Replace OUT, whatever it holds
    #[arg(long, conflicts_with = "no_clobber", help_heading = FILES)]
    pub force: bool,
    /// Read side files through links
    ///
    /// Also read weights from side files that are links to files outside the model's folder,
    /// as download caches have them.
    #[arg(long, help_heading = FILES)]
    pub follow_links: bool,

    /// Only look: all FILEs are models or folders
    ///
    /// Say what would be fused, and write nothing. A folder stands for all .onnx files in it
    /// and below it. If there are several models, each gets one line.
    #[arg(long, conflicts_with_all = ["check", "out_dir", "manifest"], help_heading = MANY)]
    pub look: bool,
    /// Like --look; exit with 5 if work remains
    ///
    /// For tests: the exit code is 5 if there is a block to fuse, or a node in training mode
    /// to convert. Nothing is written.
    #[arg(long, conflicts_with_all = ["out_dir", "manifest"], help_heading = MANY)]
    pub check: bool,
    /// Fuse each FILE into this folder
    ///
    /// Each model goes there under its own name, and each model of a folder under its path in
    /// that folder. A model that fails does not stop the others.
    #[arg(long, value_name = "FOLDER", conflicts_with = "manifest", help_heading = MANY)]
    pub out_dir: Option<PathBuf>,
    /// Fuse the models of a list
    ///
    /// A file with lines such as {"input": "a.onnx", "output": "b.onnx"}. Paths are relative to
    /// the folder that this file is in.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "files", help_heading = MANY)]
    pub manifest: Option<PathBuf>,
    /// Models to process at a time [1]
    #[arg(long, value_name = "N", value_parser = threads, help_heading = MANY)]
    pub jobs: Option<usize>,

    /// Leave the block NAME alone (repeatable)
    ///
    /// With many models, in each that has a block of this name.
    #[arg(long, value_name = "NAME", help_heading = FUSED)]
    pub skip: Vec<String>,
    /// Do not fold weights that are also inputs
    ///
    /// A weight that is listed among the graph's inputs can be overridden by a caller. By
    /// default such a weight counts as a constant, and the input goes with it.
    #[arg(long, help_heading = FUSED)]
    pub keep_overridable: bool,
    /// How much the model may grow
    ///
    /// As a fraction of its parameters. Where several convolutions share a kernel, and each has
    /// a norm or scale of its own, each would need a copy of the kernel. The copies are made if
    /// all of them together take no more than this; otherwise, none is made.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.1, value_parser = growth)]
    #[arg(help_heading = FUSED)]
    pub growth: f64,
    /// What the model is for: int8
    ///
    /// The model will be quantized: the same as --keep-identity auto --equalize.
    #[arg(long, value_name = "TYPE", value_parser = ["int8"], conflicts_with = "keep_identity")]
    #[arg(help_heading = QUANTIZED, hide_possible_values = true)]
    pub r#for: Option<String>,
    /// Whether identities stay apart
    ///
    /// An identity beside a kernel can stay apart from it, as an Add (and a Mul, if scaled).
    /// never: all are merged, as in the papers. auto: a branch (of any kind) stays apart if
    /// merging it would cost the int8 weights of the kernel more than 6 dB. always: every
    /// identity stays apart.
    #[arg(long, value_name = "WHEN", value_parser = keep_identity(), default_value = "never")]
    #[arg(help_heading = QUANTIZED, hide_possible_values = true)]
    pub keep_identity: KeepIdentity,
    /// Scale channels for 8 bits
    ///
    /// Channels are multiplied by factors that make better use of 8 bits, and the next kernels
    /// divide by them. The model computes the same function, which is proved. The factors are the
    /// best for the tensors of --input, and are applied if a run on 8 bits gains 0.5 dB or more;
    /// without --input, ranges of weights are balanced. exact: powers of two only, so that the
    /// float model is the same bit for bit.
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true)]
    #[arg(value_parser = equalizations(), default_missing_value = "best")]
    #[arg(help_heading = QUANTIZED, hide_possible_values = true)]
    pub equalize: Option<Equalize>,
    /// What becomes of nodes in training mode
    ///
    /// auto: dropouts are converted to inference, and so are batch norms whose stored
    /// statistics came from training and whose input depends on an input of the model. convert:
    /// also batch norms whose statistics are placeholders. keep: nothing is converted.
    #[arg(long, value_name = "MODE", value_parser = training_modes(), default_value = "auto")]
    #[arg(help_heading = FUSED, hide_possible_values = true)]
    pub training_mode: TrainingMode,
    /// Fix an input's sizes: NAME=1,3,224,224
    ///
    /// For inputs whose sizes the file leaves open (may be repeated). NAME:1,3,224,224 is the
    /// same.
    #[arg(long, value_name = "NAME=SIZES", value_parser = shape, help_heading = FUSED)]
    pub input_shape: Vec<(String, Vec<usize>)>,
    /// Exit with 4 if no block was fused
    ///
    /// Nothing is written then. A node that is merely converted from training mode does not
    /// count as a block.
    #[arg(long, help_heading = FUSED)]
    pub require_fusion: bool,

    /// Run the models on this: NAME=FILE.npy
    ///
    /// NAME=FILE.npy, NAME=FILE.pb, FILE.npz, or a folder with input_0.pb, input_1.pb, …
    /// (may be repeated). All other inputs are random.
    #[arg(long, value_name = "NAME=FILE", help_heading = VERIFICATION)]
    pub input: Vec<String>,
    /// How many random inputs are run
    ///
    /// At most 1000.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = samples)]
    #[arg(help_heading = VERIFICATION)]
    pub samples: usize,
    /// Seed of the random inputs
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = VERIFICATION)]
    pub seed: u64,
    /// Allowed difference of an output
    ///
    /// Relative to the output's largest value. By default 1e-4 for float32, 2e-2 for float16
    /// and 1e-9 for float64.
    #[arg(long, value_name = "X", value_parser = tolerance, help_heading = VERIFICATION)]
    pub tolerance: Option<f64>,
    /// Exit with 7 if the model cannot be run
    ///
    /// Nothing is written then. Without this, the new model is written, and the summary says
    /// NOT RUN.
    #[arg(long, conflicts_with = "no_verify", help_heading = VERIFICATION)]
    pub require_run: bool,
    /// Prove nothing and run nothing
    #[arg(long, help_heading = VERIFICATION)]
    pub no_verify: bool,

    /// Seconds for verification
    ///
    /// If the run of the whole model takes longer, it is reported as NOT RUN. If a proof, or
    /// the search of --equalize for factors, takes longer, the command ends with exit code 7.
    /// Time in which the process is stopped does not count.
    #[arg(long, value_name = "SECONDS", default_value_t = 900, help_heading = LIMITS)]
    pub verify_timeout: u64,
    /// GiB for the tensors of a run
    ///
    /// A model that needs more is reported as NOT RUN.
    #[arg(long, value_name = "GIB", default_value_t = 8, help_heading = LIMITS)]
    pub verify_memory: usize,
    /// Seconds for the whole command [no limit]
    ///
    /// From beginning to end, for all models together. After that, the command ends with exit
    /// code 7 and without a report; models that were written by then stay. Time in which the
    /// process is stopped does not count.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = LIMITS)]
    pub timeout: Option<u64>,
    /// How many processors are used [all]
    #[arg(long, value_name = "N", value_parser = threads, help_heading = LIMITS)]
    pub threads: Option<usize>,

    /// Print more
    ///
    /// Print a line for each place that is left alone, and the average magnitude of the fused
    /// weights by position; and run the new model three more times, to find how much int8
    /// weights would change its outputs.
    #[arg(long, short, conflicts_with_all = ["quiet", "out_dir", "manifest"])]
    #[arg(help_heading = SHOWN)]
    pub verbose: bool,
    /// Print nothing but errors
    #[arg(long, short, help_heading = SHOWN)]
    pub quiet: bool,
    /// Report progress on standard error
    ///
    /// In lines for programs: `progress: proving 3/12`. Reading, planning, running and writing
    /// have no numbers.
    #[arg(long, conflicts_with_all = ["out_dir", "manifest"], help_heading = SHOWN)]
    pub progress: bool,
    /// Print no colours (NO_COLOR does the same)
    #[arg(long, help_heading = SHOWN)]
    pub no_color: bool,
    /// Completions of bash, fish, zsh, elvish, powershell
    #[arg(long, value_name = "SHELL", exclusive = true, help_heading = SHOWN)]
    #[arg(hide_possible_values = true)]
    pub completions: Option<Shell>,
    /// Print the manual page, and end
    #[arg(long, exclusive = true, help_heading = SHOWN)]
    pub man: bool,
}

const FILES: &str = "Files";
const MANY: &str = "Looking, and many models";
const FUSED: &str = "What is fused";
const QUANTIZED: &str = "Before quantization";
const VERIFICATION: &str = "Verification";
const LIMITS: &str = "Limits";
const SHOWN: &str = "What is shown";

const USAGE: &str = "\
acb-fuse [OPTIONS] IN [OUT]
       acb-fuse [OPTIONS] --look|--check IN…
       acb-fuse [OPTIONS] --out-dir FOLDER IN…
       acb-fuse [OPTIONS] --manifest FILE.jsonl";

const MORE: &str = "--help says more of each, with examples and exit codes.";

impl Arguments {
    /// Returns the path of the new model; `None` if none is written.
    pub fn place(&self) -> Option<&PathBuf> {
        let second = self.files.get(1).filter(|_| !self.only_looks());
        self.output.as_ref().or(second)
    }

    /// Whether all files are models that are only looked at.
    pub fn only_looks(&self) -> bool {
        self.look || self.check
    }

    /// Checks that the reports can be written where the arguments say, for one model or `many`.
    ///
    /// # Errors
    /// Returns an error that says why one of them cannot.
    pub fn check_reports(&self, many: bool) -> Result<(), String> {
        let is_lines = |report: &Target| matches!(report, Target::Lines(_));
        let is_page = |report: &Target| matches!(report, Target::Html(_));
        let to_pipe = self.report.contains(&Target::Pipe);
        let output = self.place();
        let takes_a_place = |report: &Target| {
            self.files.iter().chain(&self.output).any(|file| places::is(report, file))
        };
        let is_manifest = |report: &Target| {
            let manifest = self.manifest.as_deref().zip(report.path());
            manifest.is_some_and(|(manifest, report)| is_same_file(manifest, report))
        };
        let why = match self.report.as_slice() {
            [] => return Ok(()),
            reports if reports.iter().any(is_manifest) => {
                "the report would take the place of the manifest"
            }
            reports if reports.iter().any(takes_a_place) => {
                "the report would take the place of a model"
            }
            reports if many => match reports {
                [one] if is_lines(one) || is_page(one) => return Ok(()),
                [a, b] if is_lines(a) && is_page(b) || is_page(a) && is_lines(b) => return Ok(()),
                _ => "the reports of many models are one FILE.jsonl and one FILE.html",
            },
            reports if reports.iter().any(is_lines) => "FILE.jsonl is for many models",
            _ if to_pipe && output.is_some_and(|output| places::is_pipe(output)) => {
                "the model and the report cannot both go to standard output"
            }
            reports if places::are_alike(reports) => "two reports would go to one file",
            _ => return Ok(()),
        };
        Err(format!("--report: {why}"))
    }

    /// Returns how channels are scaled for 8 bits; `None` if they are not.
    pub fn scaling(&self) -> Option<Equalize> {
        self.equalize.or(self.r#for.as_ref().map(|_| Equalize::Best))
    }

    /// Returns the options of the library that the arguments stand for.
    ///
    /// # Errors
    /// Returns an error if a tensor for the runs of the models cannot be read.
    pub fn options(&self) -> Result<Options, Exit> {
        let mut options = Options::default();
        options.verify = !self.no_verify;
        options.equalize = self.scaling();
        options.keep_overridable = self.keep_overridable;
        options.growth = self.growth;
        options.keep_identity = self.keep_identity;
        if self.r#for.is_some() {
            options.keep_identity = KeepIdentity::Auto;
        }
        options.training_mode = self.training_mode;
        options.skip.clone_from(&self.skip);
        options.links = if self.follow_links { Links::Followed } else { Links::Confined };
        options.clobber = match (self.no_clobber, self.force) {
            (true, _) => Clobber::Refuse,
            (_, true) => Clobber::Force,
            _ => Clobber::Replace,
        };
        let reports = self.report.iter().filter_map(Target::path);
        options.also_written = reports.map(Path::to_owned).collect();
        options.require_run = self.require_run;
        options.require_fusion = self.require_fusion;
        options.run.seed = self.seed;
        options.run.samples = self.samples;
        options.run.tolerance = self.tolerance;
        options.run.shapes = self.input_shape.iter().cloned().collect();
        for input in &self.input {
            options.run.given.extend(tensors::given(input)?);
        }
        options.verify_timeout = Duration::from_secs(self.verify_timeout);
        options.verify_memory = self.verify_memory.saturating_mul(1 << 30);
        options.details = self.verbose || !self.report.is_empty();
        options.int8_outputs = self.verbose || options.equalize.is_some();
        options.progress = match (self.progress, self.quiet) {
            (true, _) => show::progress_in_lines,
            (_, true) => stage::note,
            _ => show::progress,
        };
        Ok(options)
    }
}

/// Upper bound on the threads: no machine has more processors, and more would only take memory.
pub const MOST_THREADS: usize = 1024;

/// Upper bound on the samples: 1000 tell no more than a few, and take 1000 times as long as one.
const MOST_SAMPLES: usize = 1000;

fn threads(text: &str) -> Result<usize, String> {
    number(text, MOST_THREADS)
}

fn samples(text: &str) -> Result<usize, String> {
    number(text, MOST_SAMPLES)
}

fn number(text: &str, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("a number from 1 to {most}"))
}

fn seconds(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|&number: &u64| number > 0);
    number.ok_or_else(|| "a number of seconds, 1 or more".to_owned())
}

/// Parses a number that a difference can be compared with.
fn tolerance(text: &str) -> Result<f64, String> {
    not_negative(text).ok_or_else(|| "a tolerance is a number, 0 or more".to_owned())
}

fn growth(text: &str) -> Result<f64, String> {
    not_negative(text).ok_or_else(|| "a growth is a fraction, 0 or more".to_owned())
}

fn not_negative(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)
}

fn keep_identity() -> impl TypedValueParser<Value = KeepIdentity> {
    PossibleValuesParser::new(["auto", "always", "never"]).map(|when| match when.as_str() {
        "auto" => KeepIdentity::Auto,
        "always" => KeepIdentity::Always,
        _ => KeepIdentity::Never,
    })
}

fn equalizations() -> impl TypedValueParser<Value = Equalize> {
    PossibleValuesParser::new(["best", "exact"]).map(|how| match how.as_str() {
        "exact" => Equalize::Exact,
        _ => Equalize::Best,
    })
}

fn training_modes() -> impl TypedValueParser<Value = TrainingMode> {
    PossibleValuesParser::new(["auto", "convert", "keep"]).map(|mode| match mode.as_str() {
        "convert" => TrainingMode::Convert,
        "keep" => TrainingMode::Keep,
        _ => TrainingMode::Auto,
    })
}

/// Parses `NAME=1,3,224,224`, or with a colon, as other tools write it; a name may hold either.
fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, sizes) = text.rsplit_once(['=', ':']).ok_or("expected NAME=SIZE,SIZE,…")?;
    let sizes: Result<Vec<usize>, _> = sizes.split(',').map(|size| size.trim().parse()).collect();
    match sizes {
        Ok(sizes) if !sizes.contains(&0) => Ok((name.to_owned(), sizes)),
        _ => Err("sizes are positive whole numbers, separated by commas".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_named_with_either_sign() {
        for (text, expected) in [
            ("x=1,3,8,8", Some(("x", vec![1, 3, 8, 8]))),
            ("x:1,3", Some(("x", vec![1, 3]))),
            ("x:0=2, 5", Some(("x:0", vec![2, 5]))),
            ("x:0:7", Some(("x:0", vec![7]))),
            ("a=b:7", Some(("a=b", vec![7]))),
            ("x:0", None),
            ("x=", None),
            ("x", None),
            ("x=1,-3", None),
        ] {
            let expected = expected.map(|(name, sizes)| (name.to_owned(), sizes));
            assert_eq!(shape(text).ok(), expected, "{text}");
        }
    }
}
