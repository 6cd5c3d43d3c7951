//! What happened: once, as data; then as text, JSON or a page.
//!
//! The data are here, and are what `schema.json` describes, name by name. Below them stand
//! `files`, what is known of a model's files, `request`, what was asked for, `notes`, what else
//! a user should know, `json`, how fields become JSON, `groups`, which places are left alone for
//! one reason, and `savings`, what blocks save. Above them are [`text`], the summary in lines
//! (its `table` has a row per block), and [`html`], the page, with the [`words`] and the
//! [`verdict`] that they share; [`target`] is where they go. All are handed plain data: they
//! know no planner and no reader, and decide nothing.

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

/// Version of the schema: it grows when a reader of the last one would misunderstand.
pub const SCHEMA: u32 = 2;

/// Everything that a conversion did.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What made it.
    pub tool: Tool,
    /// How it ended.
    pub outcome: Ending,
    /// What the caller is told, if it did not get what was asked for.
    pub error: Option<ReportedError>,
    /// What was asked for.
    pub mode: Mode,
    /// The choices of the caller.
    pub options: RequestedOptions,
    /// What random inputs were made from.
    pub seeds: Seeds,
    /// By how much old and new may differ.
    pub tolerances: AllowedDifferences,
    /// What the model and its verification rest on.
    pub versions: Versions,
    /// The model that was read.
    pub input: File,
    /// The one that was written.
    pub output: Option<File>,
    /// What was, or would be, fused.
    pub blocks: Vec<BlockReport>,
    /// What was left alone, and why.
    pub near_misses: Vec<LeftAlone>,
    /// The run of both models; `None` if nothing was run.
    #[serde(serialize_with = "json::run")]
    pub run: Option<Outcome>,
    /// What verification showed, in a few words: see [`verdict`]. `None` if nothing was to be
    /// verified, or the conversion did not come so far.
    pub verdict: Option<String>,
    /// What became of the factors of channels; `None` if they were not asked for.
    pub equalization: Option<Equalization>,
    /// What int8 weights leave of the outputs; `None` if that was not asked for, or nothing tells.
    pub int8_outputs: Option<Int8Outputs>,
    /// Sizes of the whole model.
    pub sizes: Change<Size>,
    /// Of a new model, the operators of which there are more or fewer nodes than before.
    pub operators: Vec<OperatorChange>,
    /// What the model is made of, in order; `None` if that was not asked for.
    #[serde(skip)]
    pub layers: Option<Layers>,
    /// What else a user should know.
    pub notes: Notes,
    /// Where the time went.
    pub seconds: Seconds,
}

/// What made a report.
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
    /// Nothing was written.
    Failed,
}

/// What ended a conversion, as its caller tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReportedError {
    /// The exit code, if the caller is a process that ends with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// What is wrong.
    pub message: String,
}

impl ReportedError {
    /// What the caller of the library is told, where no process ends.
    pub fn of_call(message: String) -> Self {
        ReportedError { exit_code: None, message }
    }

    /// What a process says on standard error, and the code that it ends with.
    pub fn of_process(message: String, exit_code: u8) -> Self {
        ReportedError { exit_code: Some(exit_code), message }
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mode {
    /// Only look.
    Look,
    /// Rewrite and verify.
    Verified,
    /// Rewrite without verification.
    Unverified,
}

/// Something before and after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Change<T> {
    /// In the model that was read.
    pub before: T,
    /// In the one that was, or would be, written.
    pub after: T,
}

/// How many nodes of an operator there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OperatorChange {
    /// Its name, behind that of its domain if this is not ONNX's own.
    pub operator: String,
    /// Nodes before.
    pub before: usize,
    /// Nodes after.
    pub after: usize,
}

/// How large a model is. What is `None` is not known, or was not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Size {
    /// Of the model file and its side files.
    pub bytes: Option<usize>,
    /// Of the main graph and of bodies.
    pub nodes: Option<usize>,
    /// Elements of the floating-point tensors that it stores.
    pub parameters: Option<u64>,
    /// Of what is linear, for inputs of the known sizes and one image where that is open.
    #[serde(serialize_with = "json::whole")]
    pub multiply_adds: Option<f64>,
}

/// One fused block.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct BlockReport {
    /// Its name.
    pub name: String,
    /// Its branches, as in `3×3 + 1×3 + 3×1`.
    pub branches: String,
    /// The same, as they may be drawn.
    #[serde(skip)]
    pub steps: BlockSteps,
    /// Batch norms that were folded.
    pub norms: usize,
    /// Names of nodes that nobody else needs.
    pub removed_nodes: Vec<String>,
    /// Names of the nodes in their place; empty if none were made.
    pub new_nodes: Vec<String>,
    /// Names of the initializers that they read; empty if none were made.
    pub new_tensors: Vec<String>,
    /// The tensors that it reads.
    pub reads: Vec<String>,
    /// The tensor that it computes.
    pub output: String,
    /// The convolutions that it becomes.
    pub geometry: Vec<Shape>,
    /// Positions of its output, over all images; `None` if that is not known.
    #[serde(serialize_with = "json::whole")]
    pub positions: Option<f64>,
    /// What has to hold of the model's tensors for the block to be right, and is not promised
    /// by the file alone.
    pub conditions: Vec<String>,
    /// Cost of the old nodes.
    pub before: BlockCost,
    /// Cost of the new ones.
    pub after: BlockCost,
    /// Its float64 proof.
    pub proof: Option<Proof>,
    /// One per convolution; `None` if that was not asked for, or nothing was made.
    #[serde(serialize_with = "weights::serialize")]
    pub weights: Option<Vec<Comparison>>,
    /// Branches that stay apart from its convolutions.
    pub kept_apart: Vec<KeptApart>,
    /// What to do before quantization, if its weights are poor as int8.
    pub hint: Option<String>,
    /// The choice of the caller that the hint names.
    #[serde(skip)]
    pub hint_setting: Option<Setting>,
}

/// A block's branches from what they read to their sum, each step in words: `3×3`, `norm`,
/// `scale`, `identity`, or a tensor's name in backticks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockSteps {
    /// One per branch; the last may stand for further ones.
    pub branches: Vec<Vec<Arc<str>>>,
    /// What comes after the sum.
    pub after: Vec<Arc<str>>,
}

/// What a proof showed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Proof {
    /// Largest difference, relative to the largest value on the way to the output.
    pub error: f64,
}

/// What a block's nodes cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BlockCost {
    /// Nodes.
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
    /// Taps; empty for a matrix product.
    pub kernel: Vec<i64>,
    /// Distance of two outputs' windows.
    pub strides: Vec<i64>,
    /// Distance of two taps.
    pub dilations: Vec<i64>,
    /// What is added at the beginning and end; negative if it is cropped.
    pub pads: Vec<[i64; 2]>,
    /// What is added there.
    pub borders: Vec<&'static str>,
    /// Groups of channels.
    pub groups: usize,
    /// Channels that it reads.
    pub inputs: usize,
    /// Channels that it makes.
    pub outputs: usize,
    /// Whether it is a transposed convolution.
    pub transposed: bool,
}

/// Where the time went, on the wall's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Seconds {
    /// Opening and understanding the model, its hash included.
    pub read: f64,
    /// Deciding what to fuse.
    pub plan: f64,
    /// Fusing and proving the blocks.
    pub fuse_and_prove: f64,
    /// Writing the new model and putting it in place.
    pub write: f64,
    /// Reading it back against the old one, its hash included.
    pub read_back: f64,
    /// Running both models.
    pub run: f64,
    /// Finding factors of channels, and proving what they change.
    pub equalize: f64,
    /// Running the new model with int8 weights.
    pub int8: f64,
    /// All of it.
    pub total: f64,
}

impl Report {
    /// Of a conversion of the model called `path` that has done nothing yet.
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

    /// Puts the choices of the caller that reasons name in words of the caller's own.
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

    /// Whether nothing is fused and nothing converted: the new model is the old one.
    pub fn is_unchanged(&self) -> bool {
        let is_equalized = self.equalization.as_ref().is_some_and(|own| own.applied);
        self.blocks.is_empty() && self.notes.inferred_nodes == 0 && !is_equalized
    }

    /// The blocks whose weights are poor as int8.
    pub fn poor(&self) -> impl Iterator<Item = &BlockReport> {
        self.blocks.iter().filter(|block| block.hint.is_some())
    }

    /// The largest error that a proof showed; `None` if nothing was proved.
    pub fn largest_proof_error(&self) -> Option<f64> {
        let errors = self.blocks.iter().filter_map(|block| block.proof.map(|proof| proof.error));
        errors.reduce(f64::max)
    }

    /// Per size of the fused kernels, in the order of the blocks: the paper's average
    /// magnitude (Eq. 9) of those, and of the largest kernels before that have that size.
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
