//! The factors of channels: found on the model that is about to be delivered, proved node by
//! node, and tried on 8 bits. The result is a list of changed tensors, or why there is none.
//!
//! Knows the rooms that find, prove and run; writes no file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use crate::emit::weights::FusedWeights;
use crate::engine::Limits;
use crate::equalize::channels::{ChannelClasses, ScaledForm};
use crate::equalize::observed::{self, Piece, RunnableModel};
use crate::equalize::placed::SeenShapes;
use crate::equalize::scaled::scaled;
use crate::equalize::sensitivity::KernelSums;
use crate::equalize::unscaled::Unscaled;
use crate::error::Error;
use crate::facts::constants::Constants;
use crate::facts::dependence::Dependence;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::model::{Invalid, Model};
use crate::options::{Equalize, Options, RunOptions};
use crate::pipeline::analysis;
use crate::pipeline::candidates::{self, Candidates};
use crate::pipeline::check::Checked;
use crate::pipeline::claim::scaled_node;
use crate::pipeline::edits::{self, Rewrite};
use crate::pipeline::failure;
use crate::pipeline::given::{self, Samples};
use crate::pipeline::make::fingerprint;
use crate::refusal::Reason;
use crate::report::Equalization;
use crate::setting::Setting;
use crate::verify::claim::Unproved;
use crate::verify::fingerprint::Fingerprint;
use crate::verify::inputs::Random;
use crate::verify::original::Original;
use crate::verify::proof::prove;
use crate::verify::readback::{self, Expected};
use crate::verify::run::{RunClaim, SameTensors, run_graphs};

/// The seed of the random factors on which the rules of nodes are proved.
const SEED: u64 = 7;

/// The result of looking for factors, and the changes that they make.
pub struct Equalized {
    /// The changes; `None` if the model stays as it is.
    pub rewrite: Option<Rewrite>,
    /// The fingerprints that the changed tensors must have in the file.
    fingerprints: Vec<Fingerprint>,
    /// The data for the report.
    pub told: Equalization,
    how: Equalize,
}

/// Why a model stays as it is, or what ends its conversion.
enum Unequalized {
    /// The reason, and the caller's setting that it names.
    Stays(String, Option<Setting>),
    Ended(Error),
}

impl From<Error> for Unequalized {
    fn from(error: Error) -> Self {
        Unequalized::Ended(error)
    }
}

/// The main graph that is examined, and what a run or a proof of it may take.
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
    /// Returns an error if the model is malformed, a new tensor does not compute what its old
    /// one did, or a run or proof does not finish.
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
        let exact = how == Equalize::Exact;
        let mut told = Equalization { exact, ..Equalization::default() };
        let changed = match samples {
            _ if model.has_training_info => {
                Err(Unequalized::Stays(Reason::TrainingInfo.to_string(), None))
            }
            Ok(samples) => {
                let fed = FedModel { model, samples: &samples };
                scene.changed(fed, how, options, &mut told)
            }
            Err(why) => Err(Unequalized::Stays(why, None)),
        };
        told.seconds = started.elapsed().as_secs_f64();
        match changed {
            Ok(Changed { new, fingerprints }) => {
                told.applied = true;
                told.tensors = new.len();
                let rewrite = Some(edits::replaced(&graphs, graph, new).map_err(invalid)?);
                Ok(Equalized { rewrite, fingerprints, told, how })
            }
            Err(Unequalized::Stays(why, setting)) => {
                (told.reason, told.setting) = (Some(why), setting);
                Ok(Equalized { rewrite: None, fingerprints: Vec::new(), told, how })
            }
            Err(Unequalized::Ended(error)) => Err(error),
        }
    }

    /// Reads the `new` model back against the `old` one, and runs both.
    ///
    /// # Errors
    /// Returns an error if anything but the changed tensors differs.
    pub fn check(
        &self,
        old: &Model,
        new: &Model,
        file: &str,
        options: &Options,
        limits: Limits,
    ) -> Result<Checked, Error> {
        let mut run: RunOptions = options.run.clone();
        if self.how == Equalize::Exact {
            run.tolerance = Some(0.0);
        }
        let invalid = Error::invalid(file);
        let old_graphs = Graph::read_all(old).map_err(invalid)?;
        let mut expected: Vec<Expected> = old_graphs.iter().map(|_| Expected::default()).collect();
        if let Some(main) = expected.first_mut() {
            main.blocks.push((&[], &self.fingerprints));
        }
        let read_back = || {
            let new_graphs = Graph::read_all(new)?;
            readback::check(&old_graphs, &expected, &new_graphs)?;
            Ok(new_graphs)
        };
        let claim = RunClaim { same: SameTensors::Outputs, holds_at: &|_| true };
        let run = |new_graphs: &[Graph]| {
            run_graphs((old, &old_graphs), (new, new_graphs), claim, &run, limits)
        };
        Checked::of((file, options), read_back, run)
    }
}

/// A model, and the samples that it is run on.
#[derive(Clone, Copy)]
struct FedModel<'f> {
    model: &'f Model,
    samples: &'f Samples,
}

/// The changes that the factors make.
struct Changed {
    /// The new numbers of stored tensors.
    new: BTreeMap<ValueId, FusedWeights>,
    /// The fingerprints that they must have in the file.
    fingerprints: Vec<Fingerprint>,
}

impl Scene<'_, '_, '_> {
    /// Returns the tensors that change; notes in `told` how far looking for them came.
    fn changed(
        &self,
        fed: FedModel,
        how: Equalize,
        options: &Options,
        told: &mut Equalization,
    ) -> Result<Changed, Unequalized> {
        let stays = |why: &str| Unequalized::Stays(why.to_owned(), None);
        let (graph, constants) = (self.graph, self.constants);
        let runnable =
            RunnableModel::of(fed.model, self.limits).map_err(|why| self.unequalized(why))?;
        let all = observed::tensors(graph, |id| constants.contains(id));
        let shapes = observed::shapes(&runnable, graph, &all, &fed.samples.pieces);
        let shapes = shapes.map_err(|why| self.unequalized(why))?;
        let classes = self.proved_classes(&shapes)?;
        told.given = fed.samples.are_given;
        (told.kernels, told.free_kernels) = (classes.kernels, classes.free_kernels);
        told.channels = classes.count.saturating_sub(1);
        told.pinned = classes.pinned.iter().map(|(why, &n)| ((*why).to_owned(), n)).collect();
        if classes.scaled.is_empty() {
            return Err(stays("no channel of a kernel is free"));
        }
        let kernels = classes.stored.iter().filter(|one| one.form != ScaledForm::Shift);
        let kernels = kernels.map(|kernel| KernelSums::of(constants, kernel));
        let kernels =
            kernels.collect::<Result<Vec<_>, _>>().map_err(|why| self.unequalized(why))?;
        let kernels: Vec<KernelSums> = kernels.into_iter().flatten().collect();
        let candidates = Candidates {
            graph,
            constants,
            classes: &classes,
            kernels: &kernels,
            shapes: &shapes,
            how,
        };
        let given = fed.samples.are_given.then_some(fed.samples.pieces.as_slice());
        let seen = given.map(|pieces| candidates.affordable(pieces));
        let count = |pieces: Option<&[Piece]>| -> usize {
            pieces.into_iter().flatten().map(candidates::samples).sum()
        };
        told.left_out = count(given).saturating_sub(count(seen));
        let found = candidates.best(&runnable, seen).map_err(|why| self.unequalized(why))?;
        (told.before, told.after) = (found.before.filter(|own| own.is_finite()), found.after);
        if let Some(why) = found.gains_too_little() {
            return Err(Unequalized::Stays(why, None));
        }
        let factors = candidates.factors(&found.x);
        let new = classes.scaled.iter().map(|tensor| {
            Ok((tensor.value, scaled(graph, constants, &classes, tensor, &factors)?))
        });
        let new: BTreeMap<ValueId, FusedWeights> =
            new.collect::<Result<_, Unscaled>>().map_err(|why| self.unequalized(why))?;
        if how == Equalize::Exact && !are_exact(&new) {
            return Err(stays("a power of two would make a weight subnormal"));
        }
        if options.verify {
            told.proof = Some(self.proved(&classes, &factors, &new)?);
        }
        let range = factors.iter().fold((1.0f64, 1.0f64), |(a, b), &f| (a.min(f), b.max(f)));
        told.factors = Some([range.0, range.1]);
        let fingerprints = new.values().map(fingerprint).collect::<Result<_, _>>();
        let fingerprints = fingerprints.map_err(|why| self.unequalized(why))?;
        Ok(Changed { new, fingerprints })
    }

    /// Returns what follows if `why` prevents scaling: the model stays, or the conversion ends.
    fn unequalized(&self, why: impl Into<Unscaled>) -> Unequalized {
        match why.into() {
            Unscaled::Invalid(wrong) => Unequalized::Ended(Error::invalid(self.file)(wrong)),
            Unscaled::NotFinite(wrong) => Unequalized::Stays(wrong.to_string(), None),
            Unscaled::NotRun(error) => {
                let (what, setting) = ("its runs on 8 bits", error.setting());
                match failure::stopped(self.file, what, &error, setting.clone()) {
                    Some(error) => Unequalized::Ended(error),
                    None => {
                        let why = format!("the model could not be run: {error}");
                        Unequalized::Stays(why, setting)
                    }
                }
            }
        }
    }

    /// Returns the channel classes without the nodes whose rule is not proved on random factors.
    fn proved_classes(&self, shapes: &SeenShapes) -> Result<ChannelClasses, Error> {
        let invalid = Error::invalid(self.file);
        let (mut refused, mut proved) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let classes = ChannelClasses::of(self.graph, self.constants, shapes, &refused);
            let classes = classes.map_err(invalid)?;
            // So far apart that functions are tried where they bend beyond 6, or below a
            // thousandth.
            let mut random = Random::new(SEED);
            let mut factors: Vec<f64> =
                (0..classes.count).map(|_| (random.uniform() * 24.0 - 12.0).exp2()).collect();
            if let Some(pinned) = factors.first_mut() {
                *pinned = 1.0;
            }
            let wanted: Vec<NodeId> =
                classes.passing.iter().copied().filter(|id| !proved.contains(id)).collect();
            let none = BTreeMap::new();
            let refusal = |&id: &NodeId| match self.prove(id, &classes, (&factors, &none)) {
                Ok(_) => Ok(None),
                Err(Unproved::NotRun(error)) => {
                    let what = format!("the proof of node `{}`", self.graph.node(id).label());
                    let stopped = failure::stopped(self.file, &what, &error, error.setting());
                    stopped.map_or(Ok(Some(id)), Err)
                }
                Err(_) => Ok(Some(id)),
            };
            let refusals = wanted.par_iter().map(refusal);
            let refusals = refusals.collect::<Result<Vec<Option<NodeId>>, Error>>()?;
            let before = refused.len();
            refused.extend(refusals.into_iter().flatten());
            proved.extend(wanted);
            if refused.len() == before {
                return Ok(classes);
            }
        }
    }

    /// Proves every node whose stored tensors change, and returns the largest error.
    fn proved(
        &self,
        classes: &ChannelClasses,
        factors: &[f64],
        new: &BTreeMap<ValueId, FusedWeights>,
    ) -> Result<f64, Unequalized> {
        let nodes: BTreeSet<NodeId> = classes.scaled.iter().map(|scaled| scaled.node).collect();
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        let prove = |&id: &NodeId| {
            self.prove(id, classes, (factors, new)).map_err(|why| {
                let node = self.graph.node(id);
                let output = node.output().map_or("", |id| self.graph.value(id).name);
                match failure::of_proof(self.file, ("node", node.label()), output, &why) {
                    Some(error) => Unequalized::Ended(error),
                    None => Unequalized::Stays(why.to_string(), why.setting()),
                }
            })
        };
        let errors = nodes.par_iter().map(prove).collect::<Result<Vec<f64>, Unequalized>>()?;
        Ok(errors.into_iter().fold(0.0, f64::max))
    }

    /// Proves that a node makes its scaled outputs from scaled inputs with scaled weights, and
    /// returns the largest error.
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

/// Checks whether all numbers are exact in their type, so that none is rounded.
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
