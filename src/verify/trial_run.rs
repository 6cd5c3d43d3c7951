//! All trials of a proof, run on one side: as one model, a copy of the nodes per trial.
//!
//! Knows nodes and trials; not what should come out.

use std::collections::HashMap;

use prost::Message;

use crate::engine::{Array, Constant, Engine, EngineError, Limits, Source, dialect};
use crate::onnx::proto::NodeProto;
use crate::onnx::storage::Storage;
use crate::onnx::tensor;
use crate::onnx::write;
use crate::verify::claim::{Side, Unproved};
use crate::verify::cone::{Cone, Trial};
use crate::verify::original::Original;

/// Inputs of a proof have less elements, all its trials together; those of real blocks have
/// thousands, but where a size is bound: a crop at fixed places is tried at the file's size.
/// Four times the largest tensor that is read so (`ops/frame`).
const MAX_ELEMENTS: usize = 1 << 25;

/// Several trials, run as one model, so that constants are read once.
pub struct TrialRun<'t, 'r, 'g, 'm> {
    /// The graph of the cone.
    pub original: &'t Original<'r, 'g, 'm>,
    /// What is tried.
    pub cone: &'t Cone,
    /// On which inputs.
    pub trials: &'t [Trial],
}

impl TrialRun<'_, '_, '_, '_> {
    /// # Errors
    /// If the inputs of all trials are beyond all reason.
    pub fn check_size(&self) -> Result<(), Unproved> {
        let elements = |shape: &Vec<usize>| shape.iter().fold(1usize, |a, &b| a.saturating_mul(b));
        let all = self.trials.iter().flat_map(|trial| &trial.shapes).map(elements);
        let all = all.fold(0, usize::saturating_add);
        if all > MAX_ELEMENTS { Err(Unproved::TooLarge(all)) } else { Ok(()) }
    }

    /// What `side` makes of `inputs`: `outputs` of the first trial, of the second, ….
    ///
    /// # Errors
    /// If the engine cannot run it.
    pub fn run(
        &self,
        side: &Side,
        outputs: &[&str],
        inputs: &[Array],
        limits: Limits,
    ) -> Result<Vec<Array>, Unproved> {
        let opset = self.original.graph.model.opset;
        let mut copies = Copies::of(&side.constants);
        let (mut declared, mut nodes, mut made) = (Vec::new(), Vec::new(), Vec::new());
        for (number, trial) in self.trials.iter().enumerate() {
            for (&root, shape) in self.cone.roots.iter().zip(&trial.shapes) {
                let name = copies.tensor(number, &self.original.graph.value(root).name);
                declared.push(write::double_input(&name, shape.len()));
            }
            for (&(node, _), dims) in self.cone.measured.iter().zip(&trial.measured) {
                let measure = self.original.graph.node(node);
                copies.add_own(number, self.original.measured(measure, dims)?);
            }
            for node in &side.nodes {
                let copy = copies.copy(number, node);
                let integers = |name: &str| copies.integers(name);
                nodes.extend(dialect::node(copy, opset, &integers));
            }
            made.extend(outputs.iter().map(|output| copies.tensor(number, output)));
        }
        let made: Vec<&str> = made.iter().map(String::as_str).collect();
        let model = write::model(opset, declared, nodes, Vec::new(), &made);
        let (bytes, constants) = (model.encode_to_vec().into(), copies.constants);
        let source = Source { bytes, constants, storage: Storage::default(), limits };
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|input| input.shape().to_vec()).collect();
        let found = Engine::load(source, &shapes)?.run(inputs)?;
        let expected = outputs.len().saturating_mul(self.trials.len());
        if found.len() != expected {
            return Err(EngineError::Failed("it gave other outputs than asked for".into()).into());
        }
        Ok(found)
    }
}

/// Copies of a side's nodes, one per trial, under neutral names; they share its constants.
struct Copies {
    shared: HashMap<String, String>,
    own: HashMap<(usize, String), String>,
    constants: Vec<Constant>,
}

impl Copies {
    fn of(constants: &[Constant]) -> Self {
        let mut copies =
            Copies { shared: HashMap::new(), own: HashMap::new(), constants: Vec::new() };
        for constant in constants {
            let name = format!("c{}", copies.constants.len());
            if !copies.shared.contains_key(constant.name()) {
                copies.shared.insert(constant.name().to_owned(), name.clone());
                copies.constants.push(constant.clone().called(name));
            }
        }
        copies
    }

    /// The name of a tensor in the copy for trial `number`.
    fn tensor(&mut self, number: usize, name: &str) -> String {
        match self.shared.get(name) {
            Some(shared) => shared.clone(),
            None => {
                let next = format!("t{}", self.own.len());
                self.own.entry((number, name.to_owned())).or_insert(next).clone()
            }
        }
    }

    /// A constant that the copy for trial `number` alone has.
    fn add_own(&mut self, number: usize, constant: Constant) {
        let name = self.tensor(number, constant.name());
        self.constants.push(constant.called(name));
    }

    fn copy(&mut self, number: usize, node: &NodeProto) -> NodeProto {
        let mut copy = NodeProto { name: None, ..node.clone() };
        for name in copy.input.iter_mut().chain(&mut copy.output).filter(|name| !name.is_empty()) {
            *name = self.tensor(number, name);
        }
        copy
    }

    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let constant = self.constants.iter().find(|constant| constant.name() == name)?;
        tensor::integers(&constant.header, &Storage::default()).ok()
    }
}
