//! Factors of channels: found on the model that is about to be delivered, proved node by node,
//! and tried on 8 bits; what comes out is a list of changed tensors, or why there is none.
//!
//! Knows the rooms that find, prove and run; writes no file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use crate::emit::weights::FusedWeights;
use crate::engine::{EngineError, Limits};
use crate::equalize::channels::{ChannelClasses, ScaledForm};
use crate::equalize::observed::{self, Piece, RunnableModel};
use crate::equalize::placed::SeenShapes;
use crate::equalize::scaled::scaled;
use crate::equalize::sensitivity::KernelSums;
use crate::error::Error;
use crate::facts::constants::Constants;
use crate::facts::dependence::Dependence;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::model::{Invalid, Model};
use crate::options::{Equalize, Options, RunOptions};
use crate::pipeline::analysis;
use crate::pipeline::candidates::{self, Candidates, Found};
use crate::pipeline::check::Checked;
use crate::pipeline::claim::scaled_node;
use crate::pipeline::edits::{self, Rewrite};
use crate::pipeline::given::{self, Samples};
use crate::pipeline::make::fingerprint;
use crate::report::Equalization;
use crate::verify::claim::Unproved;
use crate::verify::fingerprint::Fingerprint;
use crate::verify::inputs::Random;
use crate::verify::original::Original;
use crate::verify::proof::prove;
use crate::verify::readback::{self, Expected, Miswritten};
use crate::verify::run::{RunClaim, SameTensors, run_graphs};

/// The factors are made from this on which the rules of nodes are proved.
const SEED: u64 = 7;

/// What was found, and what changes.
pub struct Equalized {
    /// What changes; `None` if the model stays as it is.
    pub rewrite: Option<Rewrite>,
    /// What the changed tensors must be in the file.
    fingerprints: Vec<Fingerprint>,
    /// What is told of it.
    pub told: Equalization,
    how: Equalize,
}

/// The model, and what it is asked.
struct Scene<'s, 'g, 'm> {
    file: &'s str,
    graph: &'g Graph<'m>,
    constants: &'g Constants<'g, 'm>,
    original: Original<'s, 'g, 'm>,
    limits: Limits,
}

impl Equalized {
    /// Looks for factors of the channels of `model`, which is called `file`.
    ///
    /// # Errors
    /// If the model is malformed; if a new tensor does not compute what its old one did.
    pub fn of(
        model: &Model,
        file: &str,
        how: Equalize,
        options: &Options,
        limits: Limits,
    ) -> Result<Self, Error> {
        let started = Instant::now();
        let invalid = Error::invalid(file);
        let graphs = Graph::read_all(model).map_err(invalid)?;
        let constants = Constants::find_all(&graphs, options.keep_overridable).map_err(invalid)?;
        let dependence = Dependence::find_all(&graphs, constants.iter().map(Arc::as_ref));
        let readers = analysis::readers(&graphs, &constants, &dependence, options);
        let Some(reader) = readers.first() else { return Err(invalid(Invalid::NoGraph)) };
        let (graph, constants) = (reader.graph, reader.constants);
        let original = Original::new(graph, constants, &reader.sizes, None, Default::default());
        let scene = Scene { file, graph, constants, original, limits };
        let samples = given::samples(model, graph, &options.run).map_err(invalid)?;
        let mut equalized = match samples {
            Ok(samples) => {
                let fed = FedModel { model, samples: &samples };
                scene.equalized(&graphs, fed, how, options)?
            }
            Err(why) => Equalized::stays(how, Equalization::default(), why),
        };
        equalized.told.seconds = started.elapsed().as_secs_f64();
        Ok(equalized)
    }

    /// That the model stays as it is, of which this is `told`.
    fn stays(how: Equalize, told: Equalization, why: String) -> Self {
        let told = Equalization { exact: how == Equalize::Exact, reason: Some(why), ..told };
        Equalized { rewrite: None, fingerprints: Vec::new(), told, how }
    }

    /// Reads the `new` model back against the `old` one, and runs both.
    ///
    /// # Errors
    /// If anything but the changed tensors differs.
    pub fn check(
        &self,
        old: &Model,
        new: &Model,
        file: &str,
        options: &Options,
        limits: Limits,
    ) -> Result<Checked, Error> {
        let started = Instant::now();
        let miswritten = |wrong: Miswritten| Error::miswritten(file, &wrong);
        let read = |model| Graph::read_all(model).map_err(|wrong| miswritten(wrong.into()));
        let (old_graphs, new_graphs) = (read(old)?, read(new)?);
        let mut expected: Vec<Expected> = old_graphs.iter().map(|_| Expected::default()).collect();
        if let Some(main) = expected.first_mut() {
            main.blocks.push((&[], &self.fingerprints));
        }
        readback::check(&old_graphs, &expected, &new_graphs).map_err(miswritten)?;
        let read_back_seconds = started.elapsed().as_secs_f64();
        let running = Instant::now();
        let mut run: RunOptions = options.run.clone();
        if self.how == Equalize::Exact {
            run.tolerance = Some(0.0);
        }
        let claim = RunClaim { same: SameTensors::Outputs, holds_at: &|_| true };
        let outcome = run_graphs((old, &old_graphs), (new, &new_graphs), claim, &run, limits)
            .map_err(Error::invalid(file))?;
        let run_seconds = running.elapsed().as_secs_f64();
        Ok(Checked { outcome, read_back_seconds, run_seconds })
    }
}

/// A model, and what it is run on.
#[derive(Clone, Copy)]
struct FedModel<'f> {
    model: &'f Model,
    samples: &'f Samples,
}

impl Scene<'_, '_, '_> {
    fn equalized(
        &self,
        graphs: &[Graph],
        fed: FedModel,
        how: Equalize,
        options: &Options,
    ) -> Result<Equalized, Error> {
        let invalid = Error::invalid(self.file);
        let not_run = |error: EngineError| {
            let why = format!("the model could not be run: {error}");
            Ok(Equalized::stays(how, Equalization::default(), why))
        };
        let (graph, constants) = (self.graph, self.constants);
        let runnable = RunnableModel::of(fed.model, self.limits).map_err(invalid)?;
        let all = observed::tensors(graph, |id| constants.contains(id));
        let shapes = match observed::shapes(&runnable, graph, &all, &fed.samples.pieces) {
            Ok(shapes) => shapes,
            Err(error) => return not_run(error),
        };
        let classes = self.proved_classes(&shapes)?;
        let mut told = Equalization {
            exact: how == Equalize::Exact,
            given: fed.samples.are_given,
            kernels: classes.kernels,
            free_kernels: classes.free_kernels,
            channels: classes.count.saturating_sub(1),
            pinned: classes.pinned.iter().map(|(why, &n)| ((*why).to_owned(), n)).collect(),
            ..Equalization::default()
        };
        let stays = |told, why: &str| Ok(Equalized::stays(how, told, why.to_owned()));
        if classes.scaled.is_empty() {
            return stays(told, "no channel of a kernel is free");
        }
        let kernels = classes.stored.iter().filter(|one| one.form != ScaledForm::Shift);
        let kernels = kernels.map(|kernel| KernelSums::of(constants, kernel));
        let kernels: Vec<KernelSums> = kernels
            .collect::<Result<Vec<_>, _>>()
            .map_err(invalid)?
            .into_iter()
            .flatten()
            .collect();
        let candidates = Candidates {
            graph,
            constants,
            classes: &classes,
            kernels: &kernels,
            shapes: &shapes,
            how,
        };
        let found = if fed.samples.are_given {
            let pieces = candidates.affordable(&fed.samples.pieces);
            let all = |pieces: &[Piece]| pieces.iter().map(candidates::samples).sum();
            let [given, looked_at]: [usize; 2] = [&fed.samples.pieces, pieces].map(all);
            told.left_out = given.saturating_sub(looked_at);
            match candidates.best(&runnable, pieces).map_err(invalid)? {
                Ok(found) => found,
                Err(error) => return not_run(error),
            }
        } else {
            let x = candidates.balanced();
            if candidates.gain_of_weights(&x) < candidates::GAIN_OF_WEIGHTS {
                let least = candidates::GAIN_OF_WEIGHTS;
                return stays(told, &format!("8-bit weights would gain less than {least} dB"));
            }
            Found { x, before: None, after: None }
        };
        if found.before.is_some_and(|before| !before.is_finite()) {
            return stays(told, "rounding to 8 bits does not show in the outputs on these inputs");
        }
        (told.before, told.after) = (found.before, found.after);
        if let (Some(before), Some(after)) = (found.before, found.after)
            && after < before + candidates::GAIN
        {
            let least = candidates::GAIN;
            return stays(told, &format!("8 bits would gain less than {least} dB"));
        }
        let factors = candidates.factors(&found.x);
        let weights = classes.scaled.iter().map(|tensor| {
            scaled(graph, constants, &classes, tensor, &factors).map(|new| (tensor.value, new))
        });
        let mut new: BTreeMap<ValueId, FusedWeights> = BTreeMap::new();
        for (value, weights) in weights.collect::<Result<Vec<_>, _>>().map_err(invalid)? {
            match weights {
                Ok(weights) => drop(new.insert(value, weights)),
                Err(wrong) => return stays(told, &wrong.to_string()),
            }
        }
        if how == Equalize::Exact && !are_exact(&new) {
            return stays(told, "a power of two would make a weight subnormal");
        }
        told.proof =
            if options.verify { Some(self.proved(&classes, &factors, &new)?) } else { None };
        let fingerprints = match new.values().map(fingerprint).collect::<Result<Vec<_>, _>>() {
            Ok(fingerprints) => fingerprints,
            Err(wrong) => return stays(told, &wrong.to_string()),
        };
        told.applied = true;
        told.tensors = new.len();
        let range = factors.iter().fold((1.0f64, 1.0f64), |(a, b), &f| (a.min(f), b.max(f)));
        told.factors = Some([range.0, range.1]);
        let rewrite = Some(edits::replaced(graphs, graph, new.into_iter().collect()));
        Ok(Equalized { rewrite, fingerprints, told, how })
    }

    /// The classes of channels, without the nodes whose rule is not proved on random factors.
    fn proved_classes(&self, shapes: &SeenShapes) -> Result<ChannelClasses, Error> {
        let invalid = Error::invalid(self.file);
        let (mut refused, mut proved) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let classes = ChannelClasses::of(self.graph, self.constants, shapes, &refused);
            let classes = classes.map_err(invalid)?;
            // So far apart that what is bent beyond 6, or below a thousandth, is reached.
            let mut random = Random::new(SEED);
            let mut factors: Vec<f64> =
                (0..classes.count).map(|_| (random.uniform() * 24.0 - 12.0).exp2()).collect();
            if let Some(pinned) = factors.first_mut() {
                *pinned = 1.0;
            }
            let wanted: Vec<NodeId> =
                classes.passing.iter().copied().filter(|id| !proved.contains(id)).collect();
            let none = BTreeMap::new();
            let fails = |&id: &NodeId| self.prove(id, &classes, (&factors, &none)).is_err();
            let fail: BTreeSet<NodeId> = wanted.par_iter().copied().filter(fails).collect();
            proved.extend(wanted);
            if fail.is_empty() {
                return Ok(classes);
            }
            refused.extend(fail);
        }
    }

    /// Proves every node whose stored tensors change; the largest difference.
    fn proved(
        &self,
        classes: &ChannelClasses,
        factors: &[f64],
        new: &BTreeMap<ValueId, FusedWeights>,
    ) -> Result<f64, Error> {
        let nodes: BTreeSet<NodeId> = classes.scaled.iter().map(|scaled| scaled.node).collect();
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        let prove = |&id: &NodeId| {
            self.prove(id, classes, (factors, new)).map_err(|wrong| {
                let node = self.graph.node(id);
                let output = node.output().map(|id| self.graph.value(id).name.clone());
                Error::BlockDiffers {
                    file: self.file.to_owned(),
                    block: node.label().to_owned(),
                    output: output.unwrap_or_default(),
                    reason: wrong.to_string(),
                }
            })
        };
        let errors = nodes.par_iter().map(prove).collect::<Result<Vec<f64>, Error>>()?;
        Ok(errors.into_iter().fold(0.0, f64::max))
    }

    /// That a node on scaled tensors, with scaled weights, makes its outputs, scaled.
    fn prove(
        &self,
        id: NodeId,
        classes: &ChannelClasses,
        (factors, new): (&[f64], &BTreeMap<ValueId, FusedWeights>),
    ) -> Result<f64, Unproved> {
        let claims = scaled_node(&self.original, id, classes, factors, new)?;
        let mut errors = claims.iter().map(|claim| prove(&self.original, claim, self.limits));
        errors.try_fold(0.0, |most: f64, error| Ok(most.max(error?)))
    }
}

/// Whether no number is rounded.
fn are_exact(new: &BTreeMap<ValueId, FusedWeights>) -> bool {
    new.values().all(|weights| {
        let mut pieces = weights.pieces();
        pieces.all(|piece| {
            weights.read(piece).is_ok_and(|exact| {
                let mut rounded = vec![0.0; exact.len()];
                weights.float.decode(&weights.float.encode(&exact), &mut rounded);
                rounded == exact
            })
        })
    })
}
