//! A model that is run slice by slice.
//!
//! What the slices give together is what the model gives in one piece: each gets the
//! tensors that those before it made. Only one of them is in the engine at a time, only
//! its weights are read then, and the engine never sees more nodes than it handles well.
//!
//! Knows the engine; where slices end is decided in [`slices`].

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message;

use crate::engine::stage::LoadedSlice;
use crate::engine::tensors::EngineTensor;
#[cfg(any(test, feature = "unstable"))]
use crate::engine::{Array, tensors};
use crate::engine::{EngineError, Limits, Source, dialect};
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::model::Invalid;
use crate::onnx::write;
use crate::verify::bridge::{NodeInputs, stand_ins};
use crate::verify::slices::{self, Most, Slice, SlicedStretch, Stretch};

/// What the engine gets at a time. It takes a while to begin, and compares each node with
/// those before it.
pub const MOST: Most = Most { nodes: 64, bytes: 8 << 20 };

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// An entry cannot be decoded.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The engine could not run it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// One way through a model, and how far it came.
#[derive(Debug, Clone)]
pub struct SlicedRun<'w, 'm> {
    /// The model's graphs, the main one first; its functions are inlined.
    graphs: &'w [Graph<'m>],
    graph: &'w Graph<'m>,
    /// Per sample the tensors that live between two slices.
    samples: Vec<LiveTensors>,
    /// Where bridges may lead, and must.
    bridges: &'w Bridges,
    /// Those over which one led, by what they are called.
    pub bridged: BTreeMap<NodeId, String>,
}

/// Nodes over which bridges lead.
#[derive(Debug, Clone, Default)]
pub struct Bridges {
    /// Where they may: the other model has the node too.
    pub allowed: HashSet<NodeId>,
    /// Where they must: the other model's run has one there.
    pub wanted: HashSet<NodeId>,
}

/// Tensors that live between two slices.
type LiveTensors = HashMap<ValueId, EngineTensor>;

impl<'w, 'm> SlicedRun<'w, 'm> {
    /// A run of the main graph that begins with `samples`, whose tensors are called `inputs`.
    /// Where the engine fails at a node that may be bridged, a bridge leads over it.
    ///
    /// # Errors
    /// If there is no graph.
    pub fn of(
        graphs: &'w [Graph<'m>],
        inputs: &[String],
        samples: &[Vec<EngineTensor>],
        bridges: &'w Bridges,
    ) -> Result<Self, Invalid> {
        let graph = graphs.first().ok_or(Invalid::NoGraph)?;
        let by_id = |sample: &Vec<EngineTensor>| -> LiveTensors {
            let named = inputs.iter().zip(sample);
            named.filter_map(|(name, tensor)| Some((graph.find(name)?, tensor.clone()))).collect()
        };
        let samples = samples.iter().map(by_id).collect();
        Ok(SlicedRun { graphs, graph, samples, bridges, bridged: BTreeMap::new() })
    }

    /// What the whole model makes of each sample, cut like that.
    ///
    /// # Errors
    /// If an entry cannot be decoded, or the engine cannot run it or needs too much.
    #[cfg(any(test, feature = "unstable"))]
    pub fn outputs(mut self, most: Most, limits: Limits) -> Result<Vec<Vec<Array>>, Stopped> {
        let (nodes, wanted) = (slices::live_nodes(self.graph), self.graph.outputs.clone());
        let whole = slices::cut(self.graph, &[Stretch { nodes, wanted }], most)?;
        whole.iter().try_for_each(|stretch| self.pass(stretch, limits))?;
        let outputs = |sample| {
            let outputs = self.graph.outputs.iter().map(|&id| self.tensor(sample, id));
            tensors::into_arrays(outputs.collect::<Result<_, _>>()?, limits)
        };
        Ok((0..self.samples.len()).map(outputs).collect::<Result<_, _>>()?)
    }

    /// The graph that is run.
    pub fn graph(&self) -> &'w Graph<'m> {
        self.graph
    }

    /// Runs one stretch for all samples; `limits` are those of this run, of which tensors
    /// that wait in it take their part.
    ///
    /// # Errors
    /// If an entry cannot be decoded, or the engine cannot run it or needs too much.
    pub fn pass(&mut self, stretch: &SlicedStretch, limits: Limits) -> Result<(), Stopped> {
        stretch.slices.iter().try_for_each(|slice| self.pass_or_bridge(slice, limits))
    }

    /// Takes all samples through a slice: in one piece, or, if the engine cannot, node by node
    /// and over those that it cannot run.
    fn pass_or_bridge(&mut self, slice: &Slice, limits: Limits) -> Result<(), Stopped> {
        let why_not = |&id: &NodeId| {
            let is_wanted = self.bridges.wanted.contains(&id);
            let other = is_wanted.then(|| "the other model does not run it".to_owned());
            dialect::misread(self.graph.node(id)).or(other)
        };
        let failed = match slice.nodes.iter().find_map(why_not) {
            Some(why) => EngineError::Misread(why),
            None => match self.pass_slice(slice, limits) {
                Err(Stopped::Engine(
                    error @ (EngineError::Failed(_) | EngineError::Panicked(_)),
                )) => error,
                other => return other,
            },
        };
        let mut wanted = slice.outputs.clone();
        wanted.extend(slice.inputs.iter().filter(|input| !slice.last_read.contains(input)));
        if let [only] = slice.nodes.as_slice() {
            return self.bridge(*only, slice, failed, limits);
        }
        if !slice.nodes.iter().any(|id| self.bridges.allowed.contains(id)) {
            return Err(failed.into());
        }
        let stretch = Stretch { nodes: slice.nodes.clone(), wanted };
        let single = slices::cut(self.graph, &[stretch], Most { nodes: 1, bytes: usize::MAX })?;
        let mut singles = single.iter().flat_map(|stretch| &stretch.slices);
        singles.try_for_each(|slice| self.pass_or_bridge(slice, limits))
    }

    /// Goes on behind a node with tensors that stand for what it makes.
    fn bridge(
        &mut self,
        id: NodeId,
        slice: &Slice,
        failed: EngineError,
        limits: Limits,
    ) -> Result<(), Stopped> {
        if !self.bridges.allowed.contains(&id) {
            return Err(failed.into());
        }
        for tensors in &mut self.samples {
            let inputs = self.graph.node(id).inputs.iter();
            let inputs: NodeInputs =
                inputs.map(|input| input.and_then(|input| tensors.get(&input).cloned())).collect();
            let Some(made) = stand_ins(self.graph, id, &inputs, limits)? else {
                return Err(failed.into());
            };
            tensors.extend(made.into_iter().filter(|(output, _)| slice.outputs.contains(output)));
            slice.last_read.iter().for_each(|id| drop(tensors.remove(id)));
        }
        self.bridged.insert(id, self.graph.node(id).label().to_owned());
        Ok(())
    }

    /// The tensor `id` of one sample, which the stretch before wanted.
    ///
    /// # Errors
    /// If nothing made it.
    pub fn tensor(&self, sample: usize, id: ValueId) -> Result<EngineTensor, EngineError> {
        let tensors = self.samples.get(sample);
        let tensor = tensors.and_then(|tensors| tensors.get(&id)).cloned();
        tensor.ok_or_else(|| {
            EngineError::Failed(format!("nothing gives `{}`", self.graph.value(id).name))
        })
    }

    /// Goes on with `tensor` as `id` in one sample.
    pub fn put(&mut self, sample: usize, id: ValueId, tensor: EngineTensor) {
        self.samples.get_mut(sample).map(|tensors| tensors.insert(id, tensor));
    }

    /// Forgets what nobody wants behind a stretch.
    pub fn forget(&mut self, ids: &[ValueId]) {
        for tensors in &mut self.samples {
            ids.iter().for_each(|id| drop(tensors.remove(id)));
        }
    }

    /// Bytes of the tensors that wait.
    pub fn bytes(&self) -> usize {
        bytes(self.samples.iter().flat_map(LiveTensors::values))
    }

    /// Takes all samples through one slice.
    fn pass_slice(&mut self, slice: &Slice, limits: Limits) -> Result<(), Stopped> {
        let mut live = self.bytes();
        let source = self.source(slice, limits)?;
        let weights = source.constants.iter().map(|weight| weight.header.raw_data().len());
        let weights = weights.fold(0, usize::saturating_add);
        let mut loaded: Option<LoadedSlice> = None;
        for sample in 0..self.samples.len() {
            let inputs = slice
                .inputs
                .iter()
                .map(|&id| Ok((self.graph.value(id).name.clone(), self.tensor(sample, id)?)));
            let inputs = inputs.collect::<Result<Vec<_>, EngineError>>()?;
            let stage = match loaded.take().filter(|stage| stage.allows(&inputs)) {
                Some(stage) => stage,
                None => LoadedSlice::load(source.clone(), &inputs)?,
            };
            // The slice counts its inputs too.
            let own = bytes(inputs.iter().map(|(_, tensor)| tensor));
            let needed = stage.bytes.saturating_add(live.saturating_sub(own));
            if needed > limits.bytes {
                return Err(EngineError::TooLarge { bytes: needed }.into());
            }
            let made = stage.run(&inputs)?;
            if let Some(tensors) = self.samples.get_mut(sample) {
                let before = bytes(tensors.values());
                tensors.extend(slice.outputs.iter().copied().zip(made));
                slice.last_read.iter().for_each(|id| drop(tensors.remove(id)));
                live = live.saturating_sub(before).saturating_add(bytes(tensors.values()));
            }
            loaded = Some(stage);
        }
        self.graph.model.storage.has_read(weights);
        Ok(())
    }

    /// A slice as a model of its own.
    fn source(&self, slice: &Slice, limits: Limits) -> Result<Source, Stopped> {
        let graph = self.graph;
        let (mut nodes, mut constants) = (Vec::new(), Vec::new());
        for &id in &slice.constants {
            match (slices::tensor(graph, id)?, graph.value(id).producer) {
                (Some(tensor), _) => constants.push(tensor.into()),
                (None, Some(node)) => nodes.extend(dialect::nodes(self.graphs, graph, node)?),
                // The engine does not know sparse tensors, and misses it.
                (None, None) => {}
            }
        }
        for &node in &slice.nodes {
            nodes.extend(dialect::nodes(self.graphs, graph, node)?);
        }
        let outputs = slice.outputs.iter().map(|&id| graph.value(id).name.as_str());
        let outputs: Vec<&str> = outputs.collect();
        let model = write::model(graph.model.opset, Vec::new(), nodes, Vec::new(), &outputs);
        let (bytes, storage) = (model.encode_to_vec().into(), graph.model.storage.clone());
        Ok(Source { bytes, constants, storage, limits })
    }
}

fn bytes<'h>(tensors: impl Iterator<Item = &'h EngineTensor>) -> usize {
    tensors.map(EngineTensor::bytes).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::onnx::float::Float;
    use crate::onnx::model::Model;
    use crate::onnx::proto::TensorProto;
    use crate::onnx::proto::attribute_proto::AttributeType;
    use crate::onnx::proto::tensor_proto::DataType;
    use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};
    use crate::onnx::storage::Storage;
    use crate::onnx::tensor::{from_floats, from_integers};
    use crate::onnx::write::{double_input, int, ints, node};
    use crate::verify::inputs::Random;

    const WHOLE: Most = Most { nodes: usize::MAX, bytes: usize::MAX };
    const ONE_EACH: Most = Most { nodes: 1, ..WHOLE };

    fn floats(name: &str, shape: &[usize]) -> TensorProto {
        match Random::new(5).floats(shape) {
            Array::Float(values) => from_floats(name, &values, Float::F64),
            Array::Int(_) => unreachable!(),
        }
    }

    fn named(name: &str) -> ValueInfoProto {
        ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() }
    }

    fn body(name: &str, nodes: Vec<NodeProto>, output: &str) -> AttributeProto {
        let graph =
            GraphProto { node: nodes, output: vec![named(output)], ..GraphProto::default() };
        let (name, r#type) = (Some(name.to_owned()), Some(AttributeType::Graph.into()));
        AttributeProto { name, r#type, g: Some(graph), ..AttributeProto::default() }
    }

    /// Inputs `x` of 2 × 3 × 4 × 5, and `unused`.
    fn model(nodes: Vec<NodeProto>, stored: Vec<TensorProto>, outputs: &[&str]) -> ModelProto {
        let inputs = vec![double_input("x", 4), double_input("unused", 1)];
        write::model(17, inputs, nodes, stored, outputs)
    }

    fn outputs_of(
        model: &ModelProto,
        most: Most,
        samples: u64,
        bytes: usize,
    ) -> Result<Vec<Vec<Array>>, String> {
        let model = Model::index(model.encode_to_vec().into(), Storage::default()).unwrap();
        let graphs = Graph::read_all(&model).unwrap();
        let limits = Limits::new(Duration::from_secs(60), bytes);
        let samples = (0..samples).map(|seed| {
            let mut random = Random::new(seed);
            let shapes: [&[usize]; 2] = [&[2, 3, 4, 5], &[1]];
            let double = DataType::Double.into();
            tensors::from_arrays(
                shapes.map(|shape| (random.floats(shape), double)).to_vec(),
                limits,
            )
            .unwrap()
        });
        let names = ["x".to_owned(), "unused".to_owned()];
        let samples: Vec<Vec<EngineTensor>> = samples.collect();
        let bridges = Bridges::default();
        let run = SlicedRun::of(&graphs, &names, &samples, &bridges).unwrap();
        run.outputs(most, limits).map_err(|stopped| stopped.to_string())
    }

    fn cases() -> Vec<(&'static str, ModelProto)> {
        let relu = |from, to| node("Relu", "", &[from], to, vec![]);
        let constant = |name, tensor| node("Constant", "", &[], name, vec![tensor]);
        let value = |tensor| write::tensor("value", tensor);
        // The first axis of x, and −1.
        let shape = || {
            vec![
                node("Shape", "", &["x"], "shape", vec![]),
                constant("zero", value(from_integers("", &[0]))),
                node("Gather", "", &["shape", "zero"], "batch", vec![int("axis", 0)]),
                constant("rest", write::ints("value_ints", vec![-1])),
                node("Concat", "", &["batch", "rest"], "target", vec![int("axis", 0)]),
                node("Reshape", "", &["x", "target"], "flat", vec![]),
            ]
        };
        let choice = |then| {
            vec![
                node("ReduceSum", "", &["x"], "sum", vec![int("keepdims", 0)]),
                node("Greater", "", &["sum", "limit"], "is_large", vec![]),
                relu("x", "seen"),
                node(
                    "If",
                    "",
                    &["is_large"],
                    "y",
                    vec![
                        // Its bodies read a tensor and a constant of the graph around them.
                        body("then_branch", then, "t"),
                        body("else_branch", vec![node("Add", "", &["x", "c"], "e", vec![])], "e"),
                    ],
                ),
            ]
        };
        let both = vec![
            node("Mul", "", &["seen", "c"], "t", vec![]),
            node("Relu", "", &["x"], "dead", vec![]),
        ];
        let split = NodeProto {
            output: vec!["a".into(), "b".into(), "dropped".into()],
            ..node("Split", "", &["x"], "", vec![int("axis", 1)])
        };
        let dropout = NodeProto {
            output: vec!["kept".into(), "mask".into()],
            ..node("Dropout", "", &["x", "ratio"], "", vec![])
        };
        let limit = |at: f64| from_floats("limit", &ndarray::arr0(at).into_dyn(), Float::F64);
        let scalar = |name| floats(name, &[]);
        let pads = from_integers("pads", &[0, 0, 1, -1, 0, 0, -1, 1]);
        let halves =
            from_floats("scales", &ndarray::arr1(&[1.0, 1.0, 2.0, 2.0]).into_dyn(), Float::F32);
        vec![
            ("chain", model(vec![relu("x", "a"), relu("a", "b"), relu("b", "y")], vec![], &["y"])),
            ("shape sub-graph", model(shape(), vec![], &["flat", "target"])),
            (
                "scales that are computed",
                model(
                    vec![
                        node("Identity", "", &["scales"], "same", vec![]),
                        node(
                            "Resize",
                            "",
                            &["x", "", "same"],
                            "y",
                            vec![write::string("mode", "nearest")],
                        ),
                    ],
                    vec![halves],
                    &["y"],
                ),
            ),
            (
                "bounds that are computed",
                model(
                    vec![
                        node("Add", "", &["one", "one"], "two", vec![]),
                        node("Slice", "", &["x", "one", "two", "two"], "y", vec![]),
                    ],
                    vec![from_integers("one", &[1])],
                    &["y"],
                ),
            ),
            (
                "kernel that is computed",
                model(
                    vec![
                        node(
                            "Transpose",
                            "",
                            &["k"],
                            "kernel",
                            vec![ints("perm", vec![3, 2, 0, 1])],
                        ),
                        node("Conv", "", &["x", "kernel"], "y", vec![]),
                    ],
                    vec![floats("k", &[3, 3, 3, 2])],
                    &["y"],
                ),
            ),
            (
                "several outputs",
                model(
                    vec![split, relu("b", "c"), node("Add", "", &["a", "c"], "y", vec![])],
                    vec![],
                    &["y", "a", "c"],
                ),
            ),
            (
                "inputs, constants and repeats as outputs",
                model(
                    vec![constant("one", value(floats("", &[1]))), relu("x", "y")],
                    vec![floats("c", &[2, 2])],
                    &["y", "c", "x", "one", "y", "unused", "c"],
                ),
            ),
            ("nothing but constants", model(vec![], vec![floats("c", &[2, 2])], &["c"])),
            (
                "constants read twice",
                model(
                    vec![
                        node("Add", "", &["x", "c"], "a", vec![]),
                        node("Mul", "", &["a", "c"], "y", vec![]),
                    ],
                    vec![scalar("c")],
                    &["y"],
                ),
            ),
            ("then", model(choice(both.clone()), vec![scalar("c"), limit(-1e9)], &["y"])),
            ("else", model(choice(both), vec![scalar("c"), limit(1e9)], &["y"])),
            ("a dropout", model(vec![dropout, relu("kept", "y")], vec![scalar("ratio")], &["y"])),
            (
                "more than one node for one",
                model(
                    vec![node("Pad", "", &["x", "pads"], "p", vec![]), relu("p", "y")],
                    vec![pads],
                    &["y"],
                ),
            ),
        ]
    }

    /// However a model is cut, it is the same model, to the last bit.
    #[test]
    fn slices_give_what_the_whole_gives() {
        for (case, model) in cases() {
            let whole = outputs_of(&model, WHOLE, 3, 1 << 20);
            assert!(whole.as_ref().is_ok_and(|samples| samples.len() == 3), "{case}: {whole:?}");
            for nodes in [1, 2, 3] {
                assert_eq!(
                    outputs_of(&model, Most { nodes, ..WHOLE }, 3, 1 << 20),
                    whole,
                    "{case}"
                );
            }
            assert_eq!(outputs_of(&model, Most { bytes: 0, ..WHOLE }, 3, 1 << 20), whole, "{case}");
        }
    }

    /// At each Relu, what it reads and makes lives (2 × 960 bytes), the zero that it compares
    /// with, and the input that nothing reads (16 bytes).
    #[test]
    fn tensors_between_slices_count() {
        let relu = |from, to| node("Relu", "", &[from], to, vec![]);
        let chain = model(vec![relu("x", "a"), relu("a", "b"), relu("b", "y")], vec![], &["y"]);
        let kept = model(vec![relu("x", "a"), relu("a", "b"), relu("b", "y")], vec![], &["y", "a"]);
        for (case, model, samples, needed) in
            [("chain", &chain, 1, 1936), ("an output is kept", &kept, 1, 2896)]
        {
            assert!(outputs_of(model, ONE_EACH, samples, needed).is_ok(), "{case}");
            let refused = outputs_of(model, ONE_EACH, samples, needed - 1);
            assert!(refused.is_err_and(|error| error.contains("MiB at a time")), "{case}");
        }
    }
}
