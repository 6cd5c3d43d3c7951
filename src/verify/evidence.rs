//! What several runs show together, and whether that is enough.
//!
//! A tensor counts as compared only if its values vary, over its elements or between runs. The
//! evidence is enough if every tensor at which the models part contributes to one that was
//! compared.
//!
//! Knows names and comparisons; runs nothing.

use std::collections::{BTreeMap, HashSet};

use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::verify::compare::ComparedTensor;
use crate::verify::decided::Decided;
use crate::verify::entries::first_output;
use crate::verify::feeding::{self, Feed, RunInput};
use crate::verify::outcome::{Agreement, NotRun, Outcome};
use crate::verify::pairs::Pairs;
use crate::verify::seen::Seen;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Evidence {
    seen: Seen,
    pieces: Option<Seen>,
    /// Whether pieces are compared from now on, because whole models say nothing.
    pub wants_pieces: bool,
    /// Per run of whole models, the shape of each input.
    pub shapes: Vec<Vec<Vec<usize>>>,
    /// Number of elements that whole models were fed.
    pub spent: usize,
    /// Bytes of the tensors that the old model computed, also in runs that failed.
    pub computed: usize,
    /// Branches that differ between both models and that no run took; `None` before the first
    /// run in which an If is decided in both.
    left_out: Option<HashSet<(String, &'static str)>>,
    /// Number of nodes of the old model that an output needs.
    pub nodes: usize,
    /// Whether float32 stood in the place of bfloat16.
    pub widened: bool,
    parted: HashSet<String>,
    covered: HashSet<String>,
}

impl Evidence {
    /// Adds what one run showed of whole models and of pieces.
    pub fn add(&mut self, feed: &Feed, whole: Option<Seen>, pieces: Option<Seen>) {
        if let Some(whole) = whole {
            let samples = usize::try_from(feed.seeds.end.saturating_sub(feed.seeds.start));
            let elements = feeding::elements(feed.shapes, samples.unwrap_or(usize::MAX));
            self.spent = self.spent.saturating_add(elements.unwrap_or(usize::MAX));
            self.shapes.push(feed.shapes.to_vec());
            self.seen.add(whole);
        }
        if let Some(pieces) = pieces {
            self.pieces.get_or_insert_with(Seen::default).add(pieces);
        }
    }

    /// Notes the tensors at which the models part, and which of them contribute to something
    /// that varies.
    pub fn cover(&mut self, old: &Graph, pairs: &Pairs) {
        let all = self.seen.all().chain(self.pieces.iter().flat_map(Seen::all));
        let varying = all.filter(|compared| compared.varies());
        let varying = varying.filter_map(|compared| old.find(&compared.name));
        let reached = ancestors(old, varying, &self.seen.bridged);
        for &(tensor, _) in &pairs.parted {
            let name = old.value(tensor).name;
            if reached.contains(&tensor) {
                self.covered.insert(name.to_owned());
            }
            self.parted.insert(name.to_owned());
        }
    }

    /// Notes the branches that differ between both models and that no run took so far.
    pub fn leave_out(&mut self, old: Option<&Decided>, new: Option<&Decided>) {
        let (Some(old), Some(new)) = (old, new) else { return };
        let differ = old.not_taken.iter().filter(|(branch, body)| {
            new.not_taken.get(*branch).is_some_and(|other| other != *body)
        });
        let mut differ: HashSet<_> = differ.map(|(branch, _)| branch.clone()).collect();
        if let Some(before) = &self.left_out {
            differ.retain(|branch| before.contains(branch));
        }
        self.left_out = Some(differ);
    }

    /// Returns a branch that differs between both models and that no run took: the If, and the
    /// name of the branch.
    pub fn left_out(&self) -> Option<&(String, &'static str)> {
        self.left_out.iter().flatten().min()
    }

    /// Returns whether everything at which the models part was compared.
    pub fn is_enough(&self) -> bool {
        self.parted.is_subset(&self.covered)
    }

    /// Returns whether an output has no elements at the sizes that were tried and something that
    /// changed was not compared for that reason. This does not hold for a detector that finds
    /// nothing: what it chooses from was compared.
    pub fn is_of_nothing(&self) -> bool {
        !self.is_enough() && self.seen.outputs.iter().any(ComparedTensor::is_empty)
    }

    /// Returns what all runs showed together.
    pub fn outcome(self, inputs: &[RunInput]) -> Outcome {
        if let Some((choice, branch)) = self.left_out() {
            let reason = format!(
                "a part that changed lies in the {branch} of the If that makes `{choice}`, which \
                 these inputs do not take"
            );
            return Outcome::NotRun(NotRun::from(reason));
        }
        if !self.is_enough() {
            return Outcome::NotRun(self.nothing_compared());
        }
        let flat = self.seen.outputs.iter().filter(|output| !output.varies());
        let flat = flat.map(|output| output.name.clone()).collect();
        let named = |shapes: Vec<Vec<usize>>| {
            inputs.iter().map(|input| input.name.clone()).zip(shapes).collect()
        };
        let (flipped, stepped) = (self.seen.flipped as f64, self.seen.stepped as f64);
        let outputs = self.seen.outputs.iter();
        let errors = outputs.map(|output| (output.name.clone(), output.error)).collect();
        Outcome::Agreed(Agreement {
            errors,
            in_pieces: self.pieces.as_ref().map(|pieces| worst(pieces.all())),
            shapes: self.shapes.into_iter().map(named).collect(),
            flat,
            bridged: self.seen.bridged.values().cloned().collect(),
            nodes: self.nodes,
            widened: self.widened,
            before: worst(self.seen.on_the_way.iter()),
            flipped: if stepped > 0.0 { flipped / stepped } else { 0.0 },
        })
    }

    fn nothing_compared(&self) -> NotRun {
        let is_flat = |output: &&ComparedTensor| !output.varies();
        let flat = self.seen.outputs.iter().find(is_flat);
        let what = flat.map_or_else(
            || "what changed".to_owned(),
            |output| format!("output `{}`", output.name),
        );
        let reason =
            format!("{what} has equal values, or none, whatever is fed, so nothing was compared");
        reason.into()
    }
}

fn worst<'c>(compared: impl Iterator<Item = &'c ComparedTensor>) -> f64 {
    compared.fold(0.0, |worst, one| worst.max(one.error))
}

/// Returns all tensors that contribute to one of `ends`, these included. What only a bridged
/// node reads does not contribute.
fn ancestors(
    graph: &Graph,
    ends: impl Iterator<Item = ValueId>,
    bridged: &BTreeMap<String, String>,
) -> HashSet<ValueId> {
    let (mut open, mut found): (Vec<ValueId>, HashSet<ValueId>) = (ends.collect(), HashSet::new());
    while let Some(tensor) = open.pop() {
        if found.insert(tensor)
            && let Some(producer) = graph.value(tensor).producer
            && !bridged.contains_key(first_output(&graph.node(producer).proto))
        {
            open.extend(graph.uses(producer));
            open.extend(graph.node(producer).outputs.iter().flatten());
        }
    }
    found
}
