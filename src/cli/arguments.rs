//! The arguments, and what they ask of the library.
//!
//! Knows flags and their texts; not what becomes of a model.

use std::path::{Path, PathBuf};
use std::time::Duration;

use acb_fuse::report::target::Target;
use acb_fuse::{Clobber, Equalize, KeepIdentity, Links, Options, TrainingMode, is_same_file};
use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap_complete::Shell;

use super::exit::Exit;
use super::places;
use super::show;
use super::stage;
use super::tensors;

/// Fold the training-time convolution blocks of an ONNX model into single
/// convolutions, and prove that nothing changed.
#[derive(Debug, Parser)]
#[command(version, override_usage = USAGE, after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Arguments {
    /// IN, the model as exported, `-` is standard input; and OUT, where the fused model
    /// goes: may be IN, `-` is standard output. Without OUT: only look, and say what would
    /// be fused, what not and why. With --out-dir: all are models
    #[arg(value_name = "FILE", required_unless_present_any = ["manifest", "completions", "man"])]
    pub files: Vec<String>,
    /// Fuse many models: each goes to this folder under its own name
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["check", "manifest"])]
    pub out_dir: Option<PathBuf>,
    /// Fuse many models: a file of lines `{"input": "a.onnx", "output": "b.onnx"}`
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["check", "files"])]
    pub manifest: Option<PathBuf>,
    /// How many of many models are in work at a time [default: 1]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub jobs: Option<usize>,
    /// How many processors are used [default: all]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Do not prove the blocks and do not run the models
    #[arg(long)]
    pub no_verify: bool,
    /// Exit with 7 if the whole model cannot be run
    #[arg(long, conflicts_with = "no_verify")]
    pub require_run: bool,
    /// Exit with 4, and write nothing, if no block was fused: a node that is only converted
    /// from training mode is none
    #[arg(long)]
    pub require_fusion: bool,
    /// Exit with 5 if there is a block to fuse or a node in training mode to convert; writes
    /// nothing
    #[arg(long)]
    pub check: bool,
    /// Leave the block of this name alone (may be repeated): of many models, in those that
    /// have it
    #[arg(long, value_name = "NAME")]
    pub skip: Vec<String>,
    /// Multiply channels by factors with which 8 bits say more, and divide by them in the next
    /// kernels: the model stays the same function, which is proved. The factors are the best for
    /// the tensors of --input, and are taken if a run on 8 bits gains 0.5 dB or more; without
    /// --input, ranges of weights are balanced. `exact`: powers of two only, so that the float
    /// model is the same bit for bit
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true,
          value_parser = equalizations(), default_missing_value = "best")]
    pub equalize: Option<Equalize>,
    /// Do not fold weights that are also graph inputs, which a caller could override
    #[arg(long)]
    pub keep_overridable: bool,
    /// By which fraction of its parameters the model may grow where convolutions share a kernel,
    /// and each has a norm or scale of its own: each gets a copy, if all copies together take
    /// no more, else none does
    #[arg(long, value_name = "FRACTION", default_value_t = 0.1, value_parser = growth)]
    pub growth: f64,
    /// Whether an identity, scaled or not, stays apart from the kernel beside it, as an Add (and a
    /// Mul). never: as in the papers; auto: where in the kernel it would cost its int8 weights
    /// more than 6 dB, and so of any other branch; always
    #[arg(long, value_name = "WHEN", value_parser = keep_identity(), default_value = "never")]
    pub keep_identity: KeepIdentity,
    /// What the new model is for. int8: it will be quantized; the same as --keep-identity auto
    /// --equalize
    #[arg(long, value_name = "TYPE", value_parser = ["int8"], conflicts_with = "keep_identity")]
    pub r#for: Option<String>,
    /// Which nodes in training mode become what they are at inference. auto: dropouts, and
    /// batch norms whose stored statistics came from training and whose input depends on the
    /// model's; convert: those with placeholders for statistics, too; keep: none
    #[arg(long, value_name = "MODE", value_parser = training_modes(), default_value = "auto")]
    pub training_mode: TrainingMode,
    /// Read weights also from side files that are links out of the model's folder, as in
    /// caches whose files are links to where their content lies
    #[arg(long)]
    pub follow_links: bool,
    /// Do not replace an existing OUT. Without this, it is replaced if it has the inputs and
    /// outputs of IN, as an earlier result has them, or is empty; a link is replaced itself
    #[arg(long)]
    pub no_clobber: bool,
    /// Replace OUT whatever it holds: another model, or no model
    #[arg(long, conflicts_with = "no_clobber")]
    pub force: bool,
    /// Fix the sizes of a graph input that the file leaves open (may be repeated)
    #[arg(long, value_name = "NAME=1,3,224,224", value_parser = shape)]
    pub input_shape: Vec<(String, Vec<usize>)>,
    /// Run the models on these tensors: NAME=FILE.npy, NAME=FILE.pb, FILE.npz, or a folder
    /// with input_0.pb, input_1.pb, … (may be repeated; inputs that are not given are random)
    #[arg(long, value_name = "NAME=FILE")]
    pub input: Vec<String>,
    /// How many random inputs the whole models are run on, at most 1000
    #[arg(long, default_value_t = 1, value_parser = samples)]
    pub samples: usize,
    /// Seed of the random inputs
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Allowed difference of an output, relative to its largest value
    /// [default: 1e-4 for float32, 2e-2 for float16, 1e-9 for float64]
    #[arg(long, value_parser = tolerance)]
    pub tolerance: Option<f64>,
    /// Seconds that verification may take, the process's stops left out: a run of the whole
    /// model that is not done by then is reported as not run; a proof ends with exit code 7
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub verify_timeout: u64,
    /// Seconds that all may take, from beginning to end, the process's stops left out: what is
    /// not done by then ends with exit code 7, and no report is written. Of many models, it is
    /// for all together: those that are done stay [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<u64>,
    /// Memory that the tensors of a run may take, in GiB; what needs more is not run
    #[arg(long, value_name = "GIB", default_value_t = 8)]
    pub verify_memory: usize,
    /// Write what was done, and how it ended: FILE.json for programs, FILE.html for a
    /// browser, `-` for JSON on standard output (may be repeated); of many models FILE.jsonl,
    /// with a line for each
    #[arg(long, value_name = "FILE", value_parser = places::target)]
    pub report: Vec<Target>,
    /// Print also each place that is left alone on a line of its own, and how large the fused
    /// weights are by position
    #[arg(long, short, conflicts_with_all = ["quiet", "out_dir", "manifest"])]
    pub verbose: bool,
    /// Print nothing but errors
    #[arg(long, short)]
    pub quiet: bool,
    /// Print no colours (NO_COLOR does the same)
    #[arg(long)]
    pub no_color: bool,
    /// Print completions for this shell, and do nothing else
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,
    /// Print the manual page, and do nothing else
    #[arg(long, exclusive = true)]
    pub man: bool,
}

const USAGE: &str = "\
acb-fuse [OPTIONS] IN [OUT]
       acb-fuse [OPTIONS] --out-dir FOLDER IN…
       acb-fuse [OPTIONS] --manifest FILE.jsonl";

const EXAMPLES: &str = "\
Examples:
  acb-fuse resnet.onnx                     what would be fused, what not and why
  acb-fuse resnet.onnx deploy.onnx         fuse, verify, write
  acb-fuse resnet.onnx resnet.onnx         the same, in place
  cat resnet.onnx | acb-fuse - - | …       in a pipe
  acb-fuse --check resnet.onnx             in a test: exit code 5 if something remains
  acb-fuse --out-dir deploy *.onnx         many, one line each; goes on after a failure
  acb-fuse in.onnx out.onnx --report r.html   and a page of what was done
  acb-fuse --completions zsh > _acb-fuse   completions of a shell

Exit codes (of many files, that of the first that failed):
  0 written (or looked at)   1 invalid model   2 usage   3 verification failed
  4 nothing fused (--require-fusion)   5 something to fuse (--check)
  6 reading or writing failed, trying again may help
  7 not run (--require-run), or out of time or memory
  8 a file cannot be found, opened, or put where it is to go

Environment:
  NO_COLOR             no colours
  RAYON_NUM_THREADS    as --threads";

impl Arguments {
    /// Whether the reports can go where they are to go.
    ///
    /// # Errors
    /// Why one cannot.
    pub fn check_reports(&self, many: bool) -> Result<(), String> {
        let is_lines = |report: &Target| matches!(report, Target::Lines(_));
        let to_pipe = self.report.contains(&Target::Pipe);
        let output = self.files.get(1);
        let takes_a_place =
            |report: &Target| self.files.iter().any(|file| places::is(report, file));
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
            [one] if many && is_lines(one) => return Ok(()),
            _ if many => "the report of many models is one FILE.jsonl",
            reports if reports.iter().any(is_lines) => "FILE.jsonl is for many models",
            _ if to_pipe && output.is_some_and(|output| places::is_pipe(output)) => {
                "the model and the report cannot both go to standard output"
            }
            reports if places::are_alike(reports) => "two reports would go to one file",
            _ => return Ok(()),
        };
        Err(format!("--report: {why}"))
    }

    /// What the library is asked for.
    ///
    /// # Errors
    /// If a tensor that the models are to be run on cannot be read.
    pub fn options(&self) -> Result<Options, Exit> {
        let mut options = Options::default();
        options.verify = !self.no_verify;
        options.equalize = self.equalize;
        options.keep_overridable = self.keep_overridable;
        options.growth = self.growth;
        options.keep_identity = self.keep_identity;
        if self.r#for.is_some() {
            options.keep_identity = KeepIdentity::Auto;
            options.equalize = options.equalize.or(Some(Equalize::Best));
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
        options.progress = if self.quiet { stage::note } else { show::progress };
        Ok(options)
    }
}

/// More threads than any machine has processors for would only take memory.
pub const MOST_THREADS: usize = 1024;

/// So many runs say no more than a few, and take a thousand times as long.
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

/// A number that a difference can be compared with.
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

/// `NAME=1,3,224,224`
fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, sizes) = text.rsplit_once('=').ok_or("expected NAME=SIZE,SIZE,…")?;
    let sizes: Result<Vec<usize>, _> = sizes.split(',').map(|size| size.trim().parse()).collect();
    match sizes {
        Ok(sizes) if !sizes.contains(&0) => Ok((name.to_owned(), sizes)),
        _ => Err("sizes are positive whole numbers, separated by commas".to_owned()),
    }
}
