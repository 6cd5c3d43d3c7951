//! Runs all trials of a proof on one side: with a copy of the nodes per trial, so that constants
//! are read once, and only some of the nodes at a time (of a large convolution, some output
//! channels), so that what a proof takes does not grow with a kernel.
//!
//! Knows nodes and trials; does not know what should come out.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message;

use crate::engine::stage::LoadedSlice;
use crate::engine::tensors::{self, EngineTensor};
use crate::engine::{Array, Constant, EngineError, Limits, Source, dialect};
use crate::onnx::proto::NodeProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;
use crate::onnx::write;
use crate::verify::claim::{Side, Unproved};
use crate::verify::cone::{Cone, Trial};
use crate::verify::original::Original;
use crate::verify::pieces::CutNode;
use crate::verify::stages::{self, ChannelDemand, ProofStage, WeighedNode};

/// Several trials that are run together.
pub struct TrialRun<'t, 'r, 'g, 'm> {
    /// The graph of the cone.
    pub original: &'t Original<'r, 'g, 'm>,
    /// The cone that is tried.
    pub cone: &'t Cone,
    /// The shapes of its inputs, trial by trial.
    pub trials: &'t [Trial],
    /// Approximate number of weights in the engine at a time.
    pub most: usize,
}

/// A callback for each tensor that somebody wants to see: the number of its trial, its name in
/// the side, and what it holds.
pub type Look<'l> = dyn FnMut(usize, &str, &Array) + 'l;

impl TrialRun<'_, '_, '_, '_> {
    /// Runs `side`; returns what it makes as `output`, trial by trial.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn outputs(
        &self,
        side: &Side,
        output: &str,
        inputs: &[Array],
        limits: Limits,
    ) -> Result<Vec<Array>, Unproved> {
        let mut found = BTreeMap::new();
        self.run(side, &[output], inputs, limits, &mut |trial, _, made| {
            found.insert(trial, made.clone());
        })?;
        Ok(found.into_values().collect())
    }

    /// Runs `side` on `inputs`, those of the first trial, of the second, …; calls `look` for the
    /// tensors `seen` of each trial as they are made.
    ///
    /// # Errors
    /// Returns an error if the engine cannot run the side.
    pub fn run(
        &self,
        side: &Side,
        seen: &[&str],
        inputs: &[Array],
        limits: Limits,
        look: &mut Look,
    ) -> Result<(), Unproved> {
        let mut copies = Copies::of(&side.constants);
        let nodes = self.nodes(side, &mut copies)?;
        let mut wanted: HashMap<String, (usize, &str)> = HashMap::new();
        for number in 0..self.trials.len() {
            let named = seen.iter().map(|&name| (copies.tensor(number, name), (number, name)));
            wanted.extend(named.collect::<Vec<_>>());
        }
        let names: HashSet<String> = wanted.keys().cloned().collect();
        let stages = stages::cut(nodes, &copies.constants, &names, self.most);
        let mut live = self.roots(&mut copies, inputs, limits)?;
        for stage in stages {
            self.pass(&stage, &mut live, limits)?;
            let shown = stage.outputs.iter().filter_map(|name| {
                let (name, place) = wanted.remove_entry(name)?;
                Some((place, live.get(&name)?.clone()))
            });
            let (places, shown): (Vec<_>, Vec<_>) = shown.unzip();
            stage.last_read.iter().for_each(|name| drop(live.remove(name)));
            let shown = tensors::into_arrays(shown, limits)?;
            places
                .iter()
                .zip(&shown)
                .for_each(|((number, name), array)| look(*number, name, array));
        }
        if wanted.is_empty() {
            return Ok(());
        }
        Err(EngineError::Failed("nothing makes what is asked for".into()).into())
    }

    /// Returns the nodes of all trials; of a convolution that is cut, each piece for all trials.
    fn nodes(&self, side: &Side, copies: &mut Copies) -> Result<Vec<WeighedNode>, Unproved> {
        let opset = self.original.graph.model.opset;
        for (number, trial) in self.trials.iter().enumerate() {
            for (&(node, _), dims) in self.cone.measured.iter().zip(&trial.measured) {
                let measure = self.original.graph.node(node);
                copies.add_own(number, self.original.measured(measure, dims)?);
            }
        }
        // What a node makes is about as large as the inputs of its trial.
        let numbers: Vec<usize> = self.trials.iter().map(Trial::elements).collect();
        let mut nodes = Vec::new();
        for node in &side.nodes {
            let of_trials = 0..self.trials.len();
            let of_trials: Vec<NodeProto> =
                of_trials.map(|number| copies.copy(number, node)).collect();
            let (written, constants) = cut(&of_trials, opset, self.most, copies);
            copies.constants.extend(constants.into_iter().map(|new| (new.name().to_owned(), new)));
            for TrialNode { trial, node, demand } in written {
                let integers = |name: &str| copies.integers(name);
                let numbers = numbers.get(trial).copied().unwrap_or(0);
                let dialect = dialect::node(node, opset, &integers).into_iter();
                // The first of these nodes reads the input.
                let demands = std::iter::once(demand).chain(std::iter::repeat(None));
                let weighed = |(node, demand)| WeighedNode { node, numbers, demand };
                nodes.extend(dialect.zip(demands).map(weighed));
            }
        }
        Ok(nodes)
    }

    /// Returns the roots of all trials by name, with the tensors that they are fed.
    fn roots(
        &self,
        copies: &mut Copies,
        inputs: &[Array],
        limits: Limits,
    ) -> Result<HashMap<String, EngineTensor>, Unproved> {
        let double = i32::from(DataType::Double);
        let given = inputs.iter().map(|input| (input.clone(), double)).collect();
        let given = tensors::from_arrays(given, limits)?;
        let roots = self.cone.roots.iter().map(|&root| self.original.graph.value(root).name);
        let roots: Vec<&str> = roots.collect();
        let of_trials =
            (0..self.trials.len()).flat_map(|trial| roots.iter().map(move |root| (trial, *root)));
        Ok(of_trials.map(|(trial, root)| copies.tensor(trial, root)).zip(given).collect())
    }

    /// Runs one stage on the `live` tensors, and adds what it makes to them.
    fn pass(
        &self,
        stage: &ProofStage,
        live: &mut HashMap<String, EngineTensor>,
        limits: Limits,
    ) -> Result<(), Unproved> {
        let opset = self.original.graph.model.opset;
        let outputs: Vec<&str> = stage.outputs.iter().map(String::as_str).collect();
        let model = write::model(opset, Vec::new(), stage.nodes.clone(), Vec::new(), &outputs);
        let (bytes, constants) = (model.encode_to_vec().into(), stage.constants.clone());
        let source = Source { bytes, constants, storage: Storage::default(), limits };
        // The engine reports a tensor that is missing.
        let given = stage.inputs.iter().filter_map(|name| {
            let tensor = live.get(name)?;
            Some((name.clone(), tensor.clone()))
        });
        let given: Vec<(String, EngineTensor)> = given.collect();
        let waiting = live.iter().filter(|(name, _)| !stage.inputs.contains(name));
        let waiting = waiting.map(|(_, tensor)| tensor.bytes()).fold(0, usize::saturating_add);
        for demand in &stage.demands {
            demand.check(live.get(&demand.tensor).map(EngineTensor::shape))?;
        }
        let loaded = LoadedSlice::load(source, &given)?;
        let bytes = loaded.bytes.saturating_add(waiting);
        if bytes > limits.bytes {
            return Err(EngineError::TooLarge { bytes }.into());
        }
        let made = loaded.run_last(&given)?;
        if made.len() != stage.outputs.len() {
            return Err(EngineError::Failed("it gave other outputs than asked for".into()).into());
        }
        live.extend(stage.outputs.iter().cloned().zip(made));
        Ok(())
    }
}

/// A node of one trial.
struct TrialNode {
    trial: usize,
    node: NodeProto,
    demand: Option<ChannelDemand>,
}

/// Returns the copies of one node, in pieces if it is a large convolution, and the constants
/// that the pieces have.
fn cut(
    of_trials: &[NodeProto],
    opset: i64,
    most: usize,
    copies: &Copies,
) -> (Vec<TrialNode>, Vec<Constant>) {
    let without_demand = |(trial, node)| TrialNode { trial, node, demand: None };
    let whole = || of_trials.iter().cloned().enumerate().map(without_demand).collect();
    let cut = |node| CutNode::of(node, |name| copies.constants.get(name));
    let Some(cuts) = of_trials.iter().map(cut).collect::<Option<Vec<CutNode>>>() else {
        return (whole(), Vec::new());
    };
    let pieces = cuts.first().map_or(Vec::new(), |cut| cut.pieces(most));
    if pieces.len() < 2 {
        return (whole(), Vec::new());
    }
    let (mut nodes, mut constants) = (Vec::new(), Vec::new());
    let mut made = vec![Vec::new(); cuts.len()];
    for piece in &pieces {
        for (trial, (cut, made)) in cuts.iter().zip(&mut made).enumerate() {
            let piece = cut.cut(piece, opset);
            // The first of these nodes reads the input.
            let demands = std::iter::once(cut.demand()).chain(std::iter::repeat(None));
            let of_piece = piece.nodes.into_iter().zip(demands);
            nodes.extend(of_piece.map(|(node, demand)| TrialNode { trial, node, demand }));
            constants.extend(piece.constants);
            made.push(piece.output);
        }
    }
    let joined = cuts.iter().zip(&made).map(|(cut, made)| cut.joined(made));
    nodes.extend(joined.enumerate().map(without_demand));
    (nodes, constants)
}

/// Copies of a side's nodes, one per trial, under neutral names; they share its constants.
struct Copies {
    shared: HashMap<String, String>,
    own: HashMap<(usize, String), String>,
    constants: HashMap<String, Constant>,
}

impl Copies {
    fn of(constants: &[Constant]) -> Self {
        let mut copies =
            Copies { shared: HashMap::new(), own: HashMap::new(), constants: HashMap::new() };
        for constant in constants {
            if !copies.shared.contains_key(constant.name()) {
                let name = format!("c{}", copies.constants.len());
                copies.shared.insert(constant.name().to_owned(), name.clone());
                copies.constants.insert(name.clone(), constant.clone().called(name));
            }
        }
        copies
    }

    /// Returns the name of a tensor in the copy for trial `number`.
    fn tensor(&mut self, number: usize, name: &str) -> String {
        match self.shared.get(name) {
            Some(shared) => shared.clone(),
            None => {
                let next = format!("t{}", self.own.len());
                self.own.entry((number, name.to_owned())).or_insert(next).clone()
            }
        }
    }

    /// Adds a constant that only the copy for trial `number` has.
    fn add_own(&mut self, number: usize, constant: Constant) {
        let name = self.tensor(number, constant.name());
        self.constants.insert(name.clone(), constant.called(name));
    }

    fn copy(&mut self, number: usize, node: &NodeProto) -> NodeProto {
        let mut copy = NodeProto { name: None, ..node.clone() };
        for name in copy.input.iter_mut().chain(&mut copy.output).filter(|name| !name.is_empty()) {
            *name = self.tensor(number, name);
        }
        copy
    }

    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        tensor::integers(&self.constants.get(name)?.header, &Storage::default()).ok()
    }
}
