//! The report on a conversion: once as data, and from these data as text, JSON or an HTML page.
//!
//! The data types are here; `schema.json` describes their JSON, name by name. Below them stand
//! `files` (a model's files), `request` (what was asked for), `notes` (what else a user should
//! know), `json` (how fields become JSON), `groups` (places that are left alone for the same
//! reason) and `savings` (what blocks save). Above them are [`text`], the summary in lines (its
//! `table` has a row for each block), and [`html`], the page, with the [`words`] and the
//! [`verdict`] that both use; [`target`] writes a report where it goes.
//!
//! Knows plain data, which others fill in; does not know the planner or the reader, and decides
//! nothing.

mod average;
mod equalization;
mod escape;
mod files;
mod groups;
pub mod html;
mod int8;
mod json;
mod kept;
mod layers;
mod left_alone;
mod notes;
mod quantization;
mod request;
mod savings;
mod table;
pub mod target;
pub mod text;
pub mod verdict;
mod weights;
pub mod words;

use std::sync::Arc;

use serde::Serialize;

use crate::affine::average;
pub use crate::affine::{Comparison, DominantBranch, Int8Weights, Magnitude, Spread};
pub use crate::report::average::Average;
pub use crate::report::equalization::Equalization;
pub use crate::report::escape::escaped;
pub use crate::report::files::{File, Predecessor, PredecessorKind, SideFile};
pub use crate::report::int8::Int8Outputs;
pub use crate::report::json::{JSON_SCHEMA, json, json_line};
pub use crate::report::kept::KeptApart;
pub use crate::report::layers::{Layer, Layers};
pub use crate::report::left_alone::LeftAlone;
pub use crate::report::notes::{ConvertedNode, NewerOpset, Notes, OpenShape};
pub use crate::report::request::{
    AllowedDifferences, RequestedOptions, RequestedShape, Seeds, Versions,
};
use crate::setting::{Setting, told};
pub use crate::verify::outcome::{Agreement, NotRun, Outcome};

/// The version of the schema. It grows when a reader of the previous version would misunderstand
/// a report.
pub const SCHEMA: u32 = 2;

/// The report on a conversion.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The version of the schema: [`SCHEMA`].
    pub schema: u32,
    /// The program that made the report.
    pub tool: Tool,
    /// How the conversion ended.
    pub outcome: Ending,
    /// What the caller is told if it did not get what was asked for.
    pub error: Option<ReportedError>,
    /// What the conversion was asked to do.
    pub mode: Mode,
    /// The caller's options.
    pub options: RequestedOptions,
    /// The seeds of the random inputs.
    pub seeds: Seeds,
    /// The differences that are allowed between the old and the new model.
    pub tolerances: AllowedDifferences,
    /// The versions of the engine, of the file's format and of its operators.
    pub versions: Versions,
    /// The model that was read.
    pub input: File,
    /// The model that was written; `None` if none was.
    pub output: Option<File>,
    /// The blocks that were, or would be, fused.
    pub blocks: Vec<BlockReport>,
    /// The places that were left alone, and why.
    pub near_misses: Vec<LeftAlone>,
    /// The outcome of running both models; `None` if nothing was run.
    #[serde(serialize_with = "json::run")]
    pub run: Option<Outcome>,
    /// What verification showed, in a few words (see [`verdict`]); `None` if there was nothing
    /// to verify, or the conversion did not get that far.
    pub verdict: Option<String>,
    /// The result of scaling channels; `None` if it was not asked for.
    pub equalization: Option<Equalization>,
    /// The accuracy of the outputs with int8 weights; `None` if that was not asked for, or could
    /// not be measured.
    pub int8_outputs: Option<Int8Outputs>,
    /// The sizes of the whole model, before and after.
    pub sizes: Change<Size>,
    /// The operators whose number of nodes changed; empty if no new model was written.
    pub operators: Vec<OperatorChange>,
    /// The layers of the model, in order; `None` if details were not asked for.
    #[serde(skip)]
    pub layers: Option<Layers>,
    /// What else a user should know.
    pub notes: Notes,
    /// The time that each step took.
    pub seconds: Seconds,
}

/// The program that made a report.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// How a conversion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ending {
    /// Nothing was to be written.
    Looked,
    /// The new model is in its place.
    Written,
    /// Nothing was written, because of an error.
    Failed,
}

/// The error that ended a conversion, as its caller reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReportedError {
    /// The exit code, if the caller is a process that ends with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// What is wrong, in a sentence.
    pub message: String,
}

impl ReportedError {
    /// The error as a call of the library returns it, where no process ends.
    pub fn of_call(message: String) -> Self {
        ReportedError { exit_code: None, message }
    }

    /// The error as a process writes it to standard error, with the exit code of the process.
    pub fn of_process(message: String, exit_code: u8) -> Self {
        ReportedError { exit_code: Some(exit_code), message }
    }
}

/// What a conversion was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mode {
    /// Only look at the model.
    Look,
    /// Rewrite the model, and verify the new one.
    Verified,
    /// Rewrite the model without verification.
    Unverified,
}

/// A quantity before and after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Change<T> {
    /// The quantity of the model that was read.
    pub before: T,
    /// The quantity of the model that was, or would be, written.
    pub after: T,
}

/// An operator, and how many nodes it has before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OperatorChange {
    /// The name of the operator, preceded by its domain unless that is ONNX's own.
    pub operator: String,
    /// Number of nodes before.
    pub before: usize,
    /// Number of nodes after.
    pub after: usize,
}

/// The size of a model. A quantity is `None` if it is not known, or was not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Size {
    /// Bytes of the model file and its side files.
    pub bytes: Option<usize>,
    /// Nodes of the main graph and of the bodies of control-flow nodes.
    pub nodes: Option<usize>,
    /// Elements of the floating-point tensors that the model stores.
    pub parameters: Option<u64>,
    /// Multiply-adds of the linear nodes, for inputs of the known sizes, and for one image where
    /// the batch size is open.
    #[serde(serialize_with = "json::whole")]
    pub multiply_adds: Option<f64>,
}

/// A block that was, or would be, fused.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct BlockReport {
    /// The name of the block.
    pub name: String,
    /// The branches, as in `3×3 + 1×3 + 3×1`.
    pub branches: String,
    /// The branches step by step, for a drawing.
    #[serde(skip)]
    pub steps: BlockSteps,
    /// Number of batch norms that are folded.
    pub norms: usize,
    /// Names of the nodes that go because nothing else needs them.
    pub removed_nodes: Vec<String>,
    /// Names of the nodes in their place; empty if none were made.
    pub new_nodes: Vec<String>,
    /// Names of the initializers that the new nodes read; empty if none were made.
    pub new_tensors: Vec<String>,
    /// Names of the tensors that the block reads.
    pub reads: Vec<String>,
    /// Name of the tensor that the block computes.
    pub output: String,
    /// The convolutions that the block becomes.
    pub geometry: Vec<Shape>,
    /// Number of positions of the output, over all images; `None` if it is not known.
    #[serde(serialize_with = "json::whole")]
    pub positions: Option<f64>,
    /// Conditions on the model's tensors without which the block is not correct, as far as the
    /// file alone does not guarantee them.
    pub conditions: Vec<String>,
    /// Cost of the old nodes.
    pub before: BlockCost,
    /// Cost of the new nodes.
    pub after: BlockCost,
    /// The float64 proof of the block; `None` if there is none.
    pub proof: Option<Proof>,
    /// The weights of each convolution, before and after; `None` if details were not asked for,
    /// or no convolution was made.
    #[serde(serialize_with = "weights::serialize")]
    pub weights: Option<Vec<Comparison>>,
    /// The branches that stay apart from the convolutions.
    pub kept_apart: Vec<KeptApart>,
    /// What to do before quantization; `None` unless the weights are poor as int8.
    pub hint: Option<String>,
    /// The caller's option that the hint names.
    #[serde(skip)]
    pub hint_setting: Option<Setting>,
}

/// The branches of a block, each from the tensor that it reads to the sum. A step is a word:
/// `3×3`, `norm`, `scale`, `identity`, or the name of a tensor in backticks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockSteps {
    /// The steps of each branch; the last entry may stand for several further branches.
    pub branches: Vec<Vec<Arc<str>>>,
    /// The steps after the sum.
    pub after: Vec<Arc<str>>,
}

/// The result of a block's proof.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Proof {
    /// Largest difference, relative to the largest value on the way to the output.
    pub error: f64,
}

/// The cost of a block's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BlockCost {
    /// Number of nodes.
    pub nodes: usize,
    /// Elements of weights, biases and statistics.
    pub parameters: u64,
    /// Multiply-adds per position of the block's output.
    #[serde(serialize_with = "json::whole_number")]
    pub multiply_adds_per_position: f64,
}

/// The shape of a convolution; every list has one entry per spatial axis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Shape {
    /// Number of taps; empty for a matrix product.
    pub kernel: Vec<i64>,
    /// Distance between the windows of consecutive outputs.
    pub strides: Vec<i64>,
    /// Distance between consecutive taps.
    pub dilations: Vec<i64>,
    /// Padding at the beginning and at the end; negative where the input is cropped.
    pub pads: Vec<[i64; 2]>,
    /// What the padding holds: `zero`, or what another mode of ONNX's Pad puts there.
    pub borders: Vec<&'static str>,
    /// Number of groups of channels.
    pub groups: usize,
    /// Number of input channels.
    pub inputs: usize,
    /// Number of output channels.
    pub outputs: usize,
    /// Whether it is a transposed convolution.
    pub transposed: bool,
}

/// The time that each step took, in seconds of wall-clock time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Seconds {
    /// Opening and understanding the model, including its hash.
    pub read: f64,
    /// Deciding what to fuse.
    pub plan: f64,
    /// Fusing and proving the blocks.
    pub fuse_and_prove: f64,
    /// Writing the new model and putting it in place.
    pub write: f64,
    /// Reading the new model back and comparing it with the old one, including its hash.
    pub read_back: f64,
    /// Running both models.
    pub run: f64,
    /// Finding the factors of channels, and proving what they change.
    pub equalize: f64,
    /// Running the new model with int8 weights.
    pub int8: f64,
    /// The whole conversion, except for writing the report.
    pub total: f64,
}

impl Report {
    /// Creates the report of a conversion of the model called `path` that has done nothing yet.
    pub fn new(path: String, mode: Mode) -> Self {
        Report {
            schema: SCHEMA,
            tool: Tool { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") },
            outcome: Ending::Failed,
            error: None,
            mode,
            options: RequestedOptions::default(),
            seeds: Seeds::default(),
            tolerances: AllowedDifferences::default(),
            versions: Versions::default(),
            input: File { path, ..File::default() },
            output: None,
            blocks: Vec::new(),
            near_misses: Vec::new(),
            run: None,
            verdict: None,
            equalization: None,
            int8_outputs: None,
            sizes: Change::default(),
            operators: Vec::new(),
            layers: None,
            notes: Notes::default(),
            seconds: Seconds::default(),
        }
    }

    /// Puts the caller's own words in the place of the options that the report's messages name.
    pub fn put_settings_in(&mut self, words: &dyn Fn(&Setting) -> String) {
        self.near_misses.iter_mut().for_each(|place| place.put_settings_in(words));
        for BlockReport { hint, hint_setting, .. } in &mut self.blocks {
            if let (Some(hint), Some(setting)) = (hint, hint_setting) {
                *hint = told(hint, setting, words);
            }
        }
        for shape in &mut self.notes.open_sizes {
            shape.told = words(&shape.setting());
        }
        let mut runs = vec![&mut self.run];
        if let Some(Equalization { reason, setting, run, .. }) = &mut self.equalization {
            if let (Some(reason), Some(setting)) = (reason, setting) {
                *reason = told(reason, setting, words);
            }
            runs.push(run);
        }
        for run in runs {
            if let Some(Outcome::NotRun(NotRun { reason, setting: Some(setting) })) = run {
                *reason = told(reason, setting, words);
            }
        }
    }

    /// Whether the new model is the old one: nothing is fused, converted or scaled.
    pub fn is_unchanged(&self) -> bool {
        let is_equalized = self.equalization.as_ref().is_some_and(|own| own.applied);
        self.blocks.is_empty() && self.notes.inferred_nodes == 0 && !is_equalized
    }

    /// The blocks whose weights are poor as int8.
    pub fn poor(&self) -> impl Iterator<Item = &BlockReport> {
        self.blocks.iter().filter(|block| block.hint.is_some())
    }

    /// Returns the largest error of all proofs; `None` if nothing was proved.
    pub fn largest_proof_error(&self) -> Option<f64> {
        let errors = self.blocks.iter().filter_map(|block| block.proof.map(|proof| proof.error));
        errors.reduce(f64::max)
    }

    /// Returns, for each size of the fused kernels in the order of the blocks, the paper's
    /// average magnitude (Eq. 9) of these kernels, and of those largest kernels before fusing
    /// that have the same size.
    pub fn averages(&self) -> Vec<Average> {
        let all = || self.blocks.iter().flat_map(|block| block.weights.iter().flatten());
        let mut sizes: Vec<&[usize]> = Vec::new();
        for compared in all() {
            let size = compared.after.kernel.as_slice();
            if !sizes.contains(&size) && size.iter().any(|&taps| taps > 1) {
                sizes.push(size);
            }
        }
        let average_of = |size: &[usize]| {
            let alike = || all().filter(move |compared| compared.after.kernel == size);
            let before = alike().filter(|compared| compared.before.kernel == size);
            let before = average(before.map(|compared| compared.before.by_position.as_slice()));
            let after = average(alike().map(|compared| compared.after.by_position.as_slice()))?;
            let (kernel, (after, layers)) = (size.to_vec(), after);
            Some(Average { kernel, before, after, layers })
        };
        sizes.into_iter().filter_map(average_of).collect()
    }
}
