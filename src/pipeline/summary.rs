//! The report of a conversion, made at its end from the values of its steps, as far as it came.
//!
//! Reads the plan and what became of it; decides nothing, and cannot fail.
//!
//! Knows the values of all steps and the data of the report, neither of which knows the other.

use std::collections::HashSet;
use std::time::Instant;

use crate::affine::{ConvKind, Geometry, PadMode, Window};
use crate::emit::term::{Term, TermKind};
use crate::error::Error;
use crate::facts::roles;
use crate::onnx::graph::Graph;
use crate::onnx::node::Node;
use crate::ops::reader::Reader;
use crate::ops::table::NEWEST_OPSET;
use crate::options::Options;
use crate::pipeline::check::{Examined, Measured};
use crate::pipeline::counts::{self, MultiplyAdds};
use crate::pipeline::deliver::Delivered;
use crate::pipeline::edited::Edited;
use crate::pipeline::equalized::Equalized;
use crate::pipeline::failure::Failure;
use crate::pipeline::fate::{Fate, MadeBlock};
use crate::pipeline::layers;
use crate::pipeline::make::Made;
use crate::pipeline::open::{LocalFunctions, Opened};
use crate::pipeline::planned::Planned;
use crate::pipeline::request;
use crate::plan::{Block, Count, KeptBranch};
use crate::refusal::NearMiss;
use crate::report::verdict::verdict;
use crate::report::{
    BlockCost, BlockReport, BlockSteps, Change, ConvertedNode, Ending, Equalization, File,
    Int8Outputs, KeptApart, Layers, LeftAlone, Mode, NewerOpset, Notes, OpenShape, OperatorChange,
    Outcome, Proof, Report, ReportedError, Seconds, Shape, SideFile, Size,
};

/// How far a conversion came: the values of the steps that are done.
#[derive(Clone, Copy)]
pub struct Reached<'s, 'r, 'g, 'm> {
    label: &'s str,
    mode: Mode,
    options: &'s Options,
    started: Instant,
    /// The model as it was read.
    pub opened: Option<&'s Opened>,
    /// The plan, and the analysis of local functions.
    pub planned: Option<(&'s Planned<'r, 'g, 'm>, &'s LocalFunctions)>,
    /// Shapes at which the model runs, if knowing its sizes may help.
    pub open_sizes: &'s [(String, Vec<usize>)],
    /// The side files that the model names, if they are reported.
    pub side_files: Option<&'s [SideFile]>,
    /// The fates of the blocks.
    pub made: Option<&'s Made>,
    /// The edits.
    pub edited: Option<&'s Edited<'m>>,
    /// What was observed of the new model, if there is one.
    pub fused: Option<&'s Examined>,
    /// The factors of channels that were found, if they are asked for.
    pub equalized: Option<&'s Equalized>,
    /// What was observed of the model with those factors.
    pub scaled: Option<&'s Examined>,
    /// The signal-to-noise ratios of the outputs with int8 weights.
    pub int8_outputs: Option<Int8Outputs>,
    /// What was written.
    pub delivered: Option<&'s Delivered>,
    /// Where the time went; later steps hold their own times in their values.
    pub seconds: Seconds,
}

impl<'s> Reached<'s, '_, '_, '_> {
    /// Begins the conversion, now, of the model called `label`.
    pub fn begun(label: &'s str, mode: Mode, options: &'s Options) -> Self {
        Reached {
            label,
            mode,
            options,
            started: Instant::now(),
            opened: None,
            planned: None,
            open_sizes: &[],
            side_files: None,
            made: None,
            edited: None,
            fused: None,
            equalized: None,
            scaled: None,
            int8_outputs: None,
            delivered: None,
            seconds: Seconds::default(),
        }
    }

    /// The same, after this many more `seconds` of writing.
    pub fn having_written(self, seconds: f64) -> Self {
        let write = self.seconds.write + seconds;
        Reached { seconds: Seconds { write, ..self.seconds }, ..self }
    }

    /// Returns the value of a step that is done.
    ///
    /// # Errors
    /// Returns the error that ended the step, with the report of all steps before it.
    pub fn or_failure<T>(&self, step: Result<T, Error>) -> Result<T, Failure> {
        step.map_err(|error| {
            let reported = Some(ReportedError::of_call(error.to_string()));
            let report = Report { error: reported, output: None, ..self.ended(Ending::Failed) };
            Failure { error: Box::new(error), report: Box::new(report) }
        })
    }

    /// Makes the report of all steps that are done.
    pub fn report(&self) -> Report {
        self.ended(match self.mode {
            Mode::Look => Ending::Looked,
            Mode::Verified | Mode::Unverified => Ending::Written,
        })
    }

    fn ended(&self, outcome: Ending) -> Report {
        let input = self.input();
        let mut report = Report {
            outcome,
            output: self.output(),
            blocks: self.blocks(),
            near_misses: self.near_misses(),
            run: run(self.fused).or(run(self.scaled)),
            equalization: self
                .equalized
                .map(|equalized| Equalization { run: run(self.scaled), ..equalized.told.clone() }),
            int8_outputs: self.int8_outputs,
            sizes: self.sizes(&input),
            operators: self.operators(),
            layers: self.layers(),
            notes: self.notes(),
            seconds: self.seconds(),
            input,
            options: request::options(self.options),
            seeds: request::seeds(self.options),
            tolerances: request::tolerances(self.options),
            versions: request::versions(self.opened.map(|opened| &opened.original)),
            ..Report::new(self.label.to_owned(), self.mode)
        };
        report.verdict = verdict(&report).map(|found| found.text);
        report
    }

    fn input(&self) -> File {
        File {
            path: self.label.to_owned(),
            bytes: self.opened.map(|opened| opened.original.bytes().len()),
            sha256: self.opened.and_then(|opened| opened.sha256.clone()),
            side_files: self.side_files.unwrap_or_default().to_vec(),
            replaced: None,
        }
    }

    /// The new model's file.
    fn output(&self) -> Option<File> {
        let delivered = self.delivered?;
        let named = self.measured().map_or(&[][..], |measured| &measured.side_files);
        Some(File {
            path: delivered.label.clone(),
            bytes: Some(delivered.model.len()),
            sha256: self.measured().and_then(|measured| measured.sha256.clone()),
            side_files: named.to_vec(),
            replaced: delivered.replaced.clone(),
        })
    }

    /// The blocks that were made; if none was tried yet, those that are planned.
    fn blocks(&self) -> Vec<BlockReport> {
        let Some((planned, _)) = self.planned else { return Vec::new() };
        let blocks = planned
            .analyses
            .iter()
            .flat_map(|analysis| analysis.plan.blocks.iter().map(|block| (analysis.reader, block)));
        let mut fates = self.made.iter().flat_map(|made| made.fates.iter().flatten());
        let mut reports = Vec::new();
        for ((reader, block), conditions) in blocks.zip(&planned.conditions) {
            let made = match fates.next() {
                Some(Fate::LeftAlone(_)) => continue,
                Some(Fate::Made(made)) => Some(made),
                None => None,
            };
            reports.push(block_report(reader, block, conditions, made));
        }
        let positions = self.multiply_adds().into_iter().flat_map(|counted| &counted.positions);
        for (report, positions) in reports.iter_mut().zip(positions) {
            report.positions = *positions;
        }
        reports
    }

    /// The layers that the model is drawn from, if details are asked for.
    fn layers(&self) -> Option<Layers> {
        let (planned, _) = self.planned.filter(|_| self.options.details)?;
        Some(layers::layers(planned, self.made))
    }

    fn multiply_adds(&self) -> Option<&'s MultiplyAdds> {
        let planned = self.planned.and_then(|(planned, _)| planned.details.as_ref());
        let made = self.made.and_then(|made| made.multiply_adds.as_ref());
        made.or(planned.map(|details| &details.multiply_adds))
    }

    /// Everything left alone: by the plan, each reason once per node; inside calls; and planned
    /// blocks that were not made.
    fn near_misses(&self) -> Vec<LeftAlone> {
        let Some((planned, functions)) = self.planned else { return Vec::new() };
        let analyses = || planned.analyses.iter();
        let blocks = analyses().flat_map(|analysis| &analysis.plan.near_misses);
        let training = analyses().flat_map(|analysis| &analysis.training.near_misses);
        let of_plan = blocks.chain(training).chain(&planned.calls);
        let mut told = HashSet::new();
        let is_new = |miss: &&NearMiss| told.insert((miss.node.clone(), miss.reason.to_string()));
        let mut near_misses: Vec<LeftAlone> = of_plan.filter(is_new).map(LeftAlone::of).collect();
        near_misses.extend(functions.near_misses.iter().map(LeftAlone::of));
        let unproved = self.made.iter().flat_map(|made| made.left_alone(planned));
        near_misses.extend(unproved.map(|miss| LeftAlone::of(&miss)));
        near_misses
    }

    fn sizes(&self, input: &File) -> Change<Size> {
        let planned = self.planned.map(|(planned, _)| planned);
        let details = planned.and_then(|planned| planned.details.as_ref());
        let counted = self.multiply_adds();
        let stays = self.edited.and_then(|edited| edited.stays.as_ref());
        let planned_before = planned.map(|planned| planned.nodes_before);
        let nodes_before = stays.map(|stays| stays.nodes).or(planned_before);
        let nodes_after = match (stays, self.edited, planned) {
            (Some(stays), ..) => Some(stays.nodes),
            (None, Some(edited), Some(planned)) => {
                let (removed, new) = (edited.rewrite.removed_nodes, edited.rewrite.new_nodes);
                Some(planned.nodes_before.saturating_sub(removed).saturating_add(new))
            }
            _ => planned.map(|planned| planned.nodes_after),
        };
        // Equalization turns Constant nodes into initializers.
        let equalized = self.equalized.and_then(|equalized| equalized.rewrite.as_ref());
        let held = equalized.map_or(0, |rewrite| rewrite.removed_nodes);
        let stored = stays.map(|stays| stays.parameters);
        let before = Size {
            bytes: self.side_files.and_then(|_| input.all_bytes()),
            nodes: nodes_before,
            parameters: stored.or(details.map(|details| details.parameters)),
            multiply_adds: counted.and_then(|counted| counted.before),
        };
        let after = Size {
            bytes: self.new_bytes(),
            nodes: nodes_after.map(|nodes| nodes.saturating_sub(held)),
            parameters: self.measured().and_then(|measured| match &measured.held {
                Some(held) => Some(held.parameters),
                None => before.parameters,
            }),
            multiply_adds: counted.and_then(|counted| counted.after),
        };
        Change { before, after }
    }

    /// The operators of which there are more or fewer nodes now.
    fn operators(&self) -> Vec<OperatorChange> {
        let held = self.measured().and_then(|measured| measured.held.as_ref());
        let (Some((planned, _)), Some(held)) = (self.planned, held) else { return Vec::new() };
        let before = counts::operators(planned.analyses.iter().map(|of| of.reader.graph));
        counts::changes(&before, &held.operators)
    }

    /// Bytes of the new model and of all side files that it names.
    fn new_bytes(&self) -> Option<usize> {
        let (delivered, measured) = (self.delivered?, self.measured()?);
        let mut side_files = measured.side_files.iter().map(|file| file.bytes);
        side_files.try_fold(delivered.model.len(), |sum, bytes| Some(sum.saturating_add(bytes?)))
    }

    fn notes(&self) -> Notes {
        let Some((planned, _)) = self.planned else { return Notes::default() };
        let converted = planned.analyses.iter().flat_map(|analysis| {
            let forms = analysis.training.forms.iter();
            forms.map(|&(id, _)| converted_node(analysis.reader.graph.node(id)))
        });
        let converted_nodes: Vec<ConvertedNode> = converted.collect();
        let opset = planned.analyses.first().map(|main| main.reader.graph.model.opset);
        let opset = opset.map(|model| NewerOpset { model, known: NEWEST_OPSET });
        Notes {
            newer_opset: opset.filter(|opset| opset.model > opset.known),
            inferred_nodes: converted_nodes.len(),
            converted_nodes,
            open_sizes: self.open_sizes.iter().map(OpenShape::of).collect(),
            repeated_names: repeated_names(planned),
            removed_inputs: self.edited.map_or(0, |edited| edited.rewrite.removed_inputs),
            unsynced: self.delivered.and_then(|delivered| delivered.unsynced.clone()),
        }
    }

    /// The measurements of the last model that was staged.
    fn measured(&self) -> Option<&'s Measured> {
        self.scaled.or(self.fused).map(|examined| &examined.measured)
    }

    fn seconds(&self) -> Seconds {
        let mut seconds = Seconds { total: self.started.elapsed().as_secs_f64(), ..self.seconds };
        seconds.equalize = self.equalized.map_or(0.0, |equalized| equalized.told.seconds);
        for examined in self.fused.into_iter().chain(self.scaled) {
            seconds.write += examined.write_seconds;
            seconds.read_back += examined.measured.seconds;
            if let Some(checked) = &examined.checked {
                seconds.read_back += checked.read_back_seconds;
                seconds.run += checked.run_seconds;
            }
        }
        seconds
    }
}

/// The outcome of the run of an examined model.
fn run(examined: Option<&Examined>) -> Option<Outcome> {
    Some(examined?.checked.as_ref()?.outcome.clone())
}

/// Returns the names that several nodes of one graph share, each once, except the empty name.
fn repeated_names(planned: &Planned) -> Vec<String> {
    let mut repeated: Vec<String> = Vec::new();
    for analysis in &planned.analyses {
        let mut seen = HashSet::new();
        let nodes = analysis.reader.graph.nodes().map(|(_, node)| node);
        // ONNX Runtime turns Constant nodes into tensors before it looks at names.
        let names = nodes.filter(|node| !roles::holds_constant(node)).map(|node| node.proto.name());
        for name in names.filter(|name| !name.is_empty() && !seen.insert(*name)) {
            repeated.push(name.to_owned());
        }
    }
    repeated.sort_unstable();
    repeated.dedup();
    repeated
}

fn block_report(
    reader: &Reader,
    block: &Block,
    conditions: &[String],
    made: Option<&MadeBlock>,
) -> BlockReport {
    let graph: &Graph = reader.graph;
    let name = |value| graph.value(value).name.to_owned();
    let mut removed: Vec<_> = block.removed.iter().copied().collect();
    removed.sort_unstable();
    let mut reads: Vec<String> = Vec::new();
    for term in &block.terms {
        let root = name(term.root);
        if !reads.contains(&root) {
            reads.push(root);
        }
    }
    let weighted = block.terms.iter().filter(|term| term.kind == TermKind::Conv);
    let weighted = weighted.flat_map(Term::kernels);
    let fused = made.map(|made| &made.fused);
    let new_nodes = fused.iter().flat_map(|fused| &fused.nodes);
    let new_weights = fused.iter().flat_map(|fused| &fused.weights);
    let new_told = fused.iter().flat_map(|fused| &fused.told);
    let new_tensors = new_weights
        .map(|weights| weights.name.clone())
        .chain(new_told.map(|tensor| tensor.name().to_owned()));
    let mut report = BlockReport {
        name: block.name.clone(),
        branches: block.branches.clone(),
        steps: BlockSteps {
            branches: block.drawing.branches.clone(),
            after: block.drawing.after.clone(),
        },
        norms: block.norms,
        removed_nodes: removed.iter().map(|&id| graph.node(id).label().to_owned()).collect(),
        new_nodes: new_nodes.map(|node| node.name().to_owned()).collect(),
        new_tensors: new_tensors.collect(),
        reads,
        output: name(block.region.output),
        geometry: weighted.map(|term| shape(&term.map)).collect(),
        positions: None,
        conditions: conditions.to_vec(),
        before: cost(&block.before),
        after: cost(&block.after),
        proof: made.and_then(|made| made.proof).map(|error| Proof { error }),
        weights: None,
        kept_apart: block.kept.iter().map(kept_apart).collect(),
        hint: None,
        hint_setting: None,
    };
    report.note_weights(made.and_then(|made| made.compared.clone()));
    report
}

fn kept_apart(kept: &KeptBranch) -> KeptApart {
    KeptApart::of(kept.branch.kernel.clone(), kept.together, kept.apart)
}

fn cost(count: &Count) -> BlockCost {
    BlockCost {
        nodes: count.nodes,
        parameters: count.parameters as u64,
        multiply_adds_per_position: count.macs.each,
    }
}

fn shape(geometry: &Geometry) -> Shape {
    let windows = || geometry.windows.iter();
    let axis = |value: fn(&Window) -> i64| windows().map(value).collect();
    let transposed = geometry.kind == ConvKind::ConvTranspose;
    let pads = |window: &Window| if transposed { window.scattered_pads().0 } else { window.pads() };
    let channels = geometry.channels;
    Shape {
        kernel: axis(|window| window.taps),
        strides: axis(|window| window.stride),
        dilations: axis(|window| window.dilation),
        pads: windows().map(pads).map(|(begin, end)| [begin, end]).collect(),
        borders: windows().map(|window| border(window.pad_mode)).collect(),
        groups: channels.map_or(1, |channels| channels.groups),
        inputs: channels.map_or(1, |channels| channels.inputs),
        outputs: channels.map_or(1, |channels| channels.outputs),
        transposed,
    }
}

fn border(pad_mode: PadMode) -> &'static str {
    match pad_mode {
        PadMode::Zero | PadMode::SameUpper | PadMode::SameLower => "zero",
        PadMode::Reflect => "reflect",
        PadMode::Edge => "edge",
        PadMode::Wrap => "wrap",
    }
}

fn converted_node(node: &Node) -> ConvertedNode {
    let change = if roles::is_batch_norm(node) {
        "batch norm, from the statistics of each batch to the stored ones"
    } else {
        "dropout, from dropping at random to dropping nothing"
    };
    let operator = node.proto.op_type().to_owned();
    ConvertedNode { node: node.label().to_owned(), operator, change }
}
