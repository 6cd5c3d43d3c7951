//! One block of one model, and the parts of which its mutants are made.
use std::iter;
use std::sync::Arc;

use acb_fuse::TrainingMode;
use acb_fuse::affine::{ConvKind, Geometry, Window};
use acb_fuse::emit::nodes::FusedNodes;
use acb_fuse::emit::term::{Term, TermKind};
use acb_fuse::emit::weights::FusedWeights;
use acb_fuse::engine::{Array, Constant, InputShapes, Limits};
use acb_fuse::facts::constants::Constants;
use acb_fuse::facts::dependence::Dependence;
use acb_fuse::facts::validity::{Condition, Property, Validity};
use acb_fuse::numbers;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::ids::{IdMap, ValueId};
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::{AttributeProto, ModelProto, NodeProto, TensorProto};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use acb_fuse::ops::meanings::Meanings;
use acb_fuse::ops::reader::{Reader, Training};
use acb_fuse::pipeline::claim::claims;
use acb_fuse::pipeline::fuse;
use acb_fuse::plan::{Block, BlockNames, Wanted, plan};
use acb_fuse::verify::border::FilledBorder;
use acb_fuse::verify::claim::{Claim, Side, Unproved};
use acb_fuse::verify::fingerprint::Fingerprint;
use acb_fuse::verify::inputs::Random;
use acb_fuse::verify::original::Original;
use acb_fuse::verify::proof::{old_side, prove_by};
use acb_fuse::verify::trials::choose;
use ndarray::ArrayD;
use prost::Message;

use crate::support::naive;

/// Runs `check` on the pipeline's state for a model's main graph.
pub fn with_model<T>(bytes: Vec<u8>, check: impl FnOnce(&Reader, &Meanings) -> T) -> T {
    let model = Model::index(bytes.into(), Storage::default()).unwrap();
    let graphs = Graph::read_all(&model).unwrap();
    let constants = Constants::find_all(&graphs, false).unwrap();
    let shapes = InputShapes::new();
    let dependence = Dependence::find_all(&graphs, constants.iter().map(Arc::as_ref));
    let training = Training { asked: TrainingMode::Auto, dependence: &dependence[0] };
    let reader = Reader::new(&graphs[0], &constants[0], &shapes, training);
    let meanings = Meanings::of(&reader).unwrap();
    check(&reader, &meanings)
}

/// What a fuser made of a block, and what it claims about that.
#[derive(Clone)]
pub struct Rewritten {
    pub fused: Made,
    pub beliefs: Beliefs,
}

/// A claim without its nodes, by the names of tensors: the fuser may have read another model than
/// the one that is rewritten.
#[derive(Clone, Debug)]
pub struct Beliefs {
    pub roots: Vec<String>,
    pub conditions: Vec<(String, Property)>,
    pub borders: Vec<(String, String, FilledBorder)>,
    pub turned: Vec<NodeProto>,
}

impl Beliefs {
    pub fn of(claim: &Claim, graph: &Graph) -> Self {
        let name = |id: ValueId| graph.value(id).name.to_owned();
        let condition =
            |condition: &Condition| (name(condition.tensor), condition.property.clone());
        let border =
            |border: &FilledBorder| (name(border.inner), name(border.output), border.clone());
        Beliefs {
            roots: claim.roots.iter().copied().map(name).collect(),
            conditions: claim.valid.conditions().iter().map(condition).collect(),
            borders: claim.borders.iter().map(border).collect(),
            turned: claim.turned.clone(),
        }
    }

    /// Returns the claim about a block of `graph`, or `None` if it has no tensors of these names.
    pub fn claim(&self, graph: &Graph, output: &str, new: Side) -> Option<Claim> {
        let find = |name: &String| graph.find(name);
        let mut valid = Validity::default();
        for (name, property) in &self.conditions {
            valid.require(find(name)?, property.clone());
        }
        let border = |(inner, output, border): &(String, String, FilledBorder)| {
            let (inner, output) = (find(inner)?, find(output)?);
            Some(FilledBorder { inner, output, ..border.clone() })
        };
        Some(Claim {
            output: graph.find(output)?,
            roots: self.roots.iter().map(find).collect::<Option<_>>()?,
            valid,
            borders: self.borders.iter().map(border).collect::<Option<_>>()?,
            turned: self.turned.clone(),
            new,
        })
    }
}

/// Returns the main graph of the file as verification sees it.
pub fn original<'r, 'g, 'm>(reader: &'r Reader<'g, 'm>) -> Original<'r, 'g, 'm> {
    Original::new(reader.graph, reader.constants, &reader.sizes, None, IdMap::default())
}

/// The nodes and tensors that take a block's place, with all numbers.
#[derive(Clone)]
pub struct Made {
    pub nodes: Vec<NodeProto>,
    /// New initializers as they are written.
    pub tensors: Vec<TensorProto>,
    /// The floating-point initializers, by name, before rounding.
    pub exact: Vec<(String, ArrayD<f64>)>,
}

impl Made {
    pub fn of(fused: &FusedNodes) -> Self {
        let array = |weights: &FusedWeights| {
            let numbers = numbers::all(&*weights.numbers);
            let dims: Vec<usize> = weights.dims.iter().map(|&dim| dim as usize).collect();
            (weights.name.clone(), ArrayD::from_shape_vec(dims, numbers).unwrap())
        };
        Made {
            nodes: fused.nodes.clone(),
            tensors: fused.weights.iter().map(written).chain(fused.told.clone()).collect(),
            exact: fused.weights.iter().map(array).collect(),
        }
    }

    /// Returns the side of a claim that is proved.
    pub fn side(&self) -> Side {
        let floats =
            self.exact.iter().map(|(name, values)| tensor::from_floats(name, values, Float::F64));
        let others = self.tensors.iter();
        let others = others.filter(|tensor| Float::from_onnx(tensor.data_type()).is_none());
        let constants = floats.chain(others.cloned()).map(Constant::from).collect();
        Side { nodes: self.nodes.clone(), constants }
    }

    /// Returns whether the tensors that are written are those that are proved, rounded.
    fn is_rounded(&self, float: Float) -> bool {
        self.exact.iter().all(|(name, values)| {
            let dims: Vec<i64> = values.shape().iter().map(|&dim| dim as i64).collect();
            let header = tensor::header(name, &dims, float.to_onnx());
            let numbers = values.iter().copied().collect::<Vec<f64>>();
            let proved =
                Fingerprint::rounded(header, float, iter::once(Ok::<_, ()>(numbers))).unwrap();
            self.tensors.iter().any(|tensor| Fingerprint::of(tensor) == proved)
        })
    }
}

/// Returns the fingerprint that weights must have in the file.
pub fn fingerprint(weights: &FusedWeights) -> Fingerprint {
    let pieces = weights.pieces().map(|piece| weights.read(piece));
    Fingerprint::rounded(weights.header(), weights.float, pieces).unwrap()
}

/// Returns weights as the file will hold them.
pub fn written(weights: &FusedWeights) -> TensorProto {
    let pieces = weights.pieces().map(|piece| weights.rounded(piece).unwrap());
    let raw = pieces.collect::<Vec<_>>().concat();
    TensorProto { raw_data: Some(raw.into()), ..weights.header() }
}

/// Returns what the fuser makes of the block that computes `output`, or `None` if there is none.
pub fn rewritten(model: &ModelProto, output: &str) -> Option<Rewritten> {
    with_model(model.encode_to_vec(), |reader, meanings| {
        let plan = plan(reader, meanings, &mut BlockNames::of(reader.graph), Wanted::default());
        let name = |block: &Block| reader.graph.value(block.region.output).name.to_owned();
        let block = plan.blocks.iter().find(|block| name(block) == output)?;
        let terms = fuse::terms(reader, meanings, &plan, block).ok()?;
        let fused = Made::of(&fuse::fused(reader, block, &terms).ok()?);
        let claim =
            claims(reader, meanings, (block, &[block.region.output]), &fused.side()).swap_remove(0);
        Some(Rewritten { fused, beliefs: Beliefs::of(&claim, reader.graph) })
    })
}

/// The first block of a model.
pub struct Scene<'s, 'g, 'm> {
    pub model: ModelProto,
    /// Positions of the block's nodes in the main graph.
    pub nodes: Vec<usize>,
    pub float: Float,
    pub right: Rewritten,
    /// Positions of the kernel and the bias in [`Made::exact`].
    pub kernel: usize,
    pub bias: Option<usize>,
    /// The contribution of each convolution to the kernel.
    pub arms: Vec<ArrayD<f64>>,
    reader: &'s Reader<'g, 'm>,
    meanings: &'s Meanings,
    block: &'s Block,
    probe: Vec<(String, ArrayD<f64>)>,
    expected: ArrayD<f64>,
}

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// The mutant computes what the right rewrite does, and is stored as that.
    Same,
    CaughtByRounding,
    CaughtByProof,
    /// The proof cannot be run, so the block is left alone.
    LeftAlone,
    /// The proof saw no difference.
    Missed,
}

impl Scene<'_, '_, '_> {
    /// Runs `check` on the first block of a model.
    pub fn of<T>(bytes: &[u8], check: impl FnOnce(&Scene) -> T) -> T {
        let model = ModelProto::decode(bytes).unwrap();
        with_model(bytes.to_vec(), |reader, meanings| {
            let plan = plan(reader, meanings, &mut BlockNames::of(reader.graph), Wanted::default());
            let block = &plan.blocks[0];
            let output = reader.graph.value(block.region.output).name;
            let right = rewritten(&model, output).unwrap();
            let claim =
                claims(reader, meanings, (block, &[block.region.output]), &right.fused.side())
                    .swap_remove(0);
            let probe = probe(block, &claim, reader);
            let expected = naive::run(&claim.new, &probe).unwrap();
            let ids: Vec<_> = reader.graph.nodes().map(|(id, _)| id).collect();
            let is_inside = |&at: &usize| block.region.nodes.contains(&ids[at]);
            let exact = &right.fused.exact;
            let mut scene = Scene {
                nodes: (0..ids.len()).filter(is_inside).collect(),
                float: block.float,
                kernel: exact.iter().position(|(_, values)| values.ndim() > 1).unwrap(),
                bias: exact.iter().position(|(name, _)| name.ends_with(".bias")),
                arms: vec![],
                model,
                right,
                reader,
                meanings,
                block,
                probe,
                expected,
            };
            scene.arms = scene.contributions(output);
            check(&scene)
        })
    }

    /// Returns, per arm, the kernel minus the kernel without this arm.
    fn contributions(&self, output: &str) -> Vec<ArrayD<f64>> {
        let with = |fused: &Made| fused.exact.get(self.kernel).map(|(_, kernel)| kernel.clone());
        let whole = with(&self.right.fused).unwrap();
        let arm = |convolution: usize| {
            let without = self.changed(convolution, 1, |kernel| kernel.fill(0.0))?;
            let rest = with(&rewritten(&without, output)?.fused)?;
            (rest.shape() == whole.shape()).then(|| &whole - &rest)
        };
        let arms = self.convolutions().into_iter().filter_map(arm);
        arms.filter(|arm| arm.iter().any(|&weight| weight != 0.0)).collect()
    }

    pub fn node(&self, at: usize) -> &NodeProto {
        &self.model.graph.as_ref().unwrap().node[at]
    }

    fn nodes_with(&self, ops: &[&str]) -> Vec<usize> {
        self.nodes.iter().copied().filter(|&at| ops.contains(&self.node(at).op_type())).collect()
    }

    pub fn convolutions(&self) -> Vec<usize> {
        self.nodes_with(&["Conv", "ConvTranspose"])
    }

    pub fn norms(&self) -> Vec<usize> {
        self.nodes_with(&["BatchNormalization"])
    }

    /// Returns the model with another constant at an input of one of its nodes.
    pub fn changed(
        &self,
        at: usize,
        input: usize,
        change: impl FnOnce(&mut ArrayD<f64>),
    ) -> Option<ModelProto> {
        let mut model = self.model.clone();
        let (mut values, float) = self.constant(at, input)?;
        change(&mut values);
        let graph = model.graph.as_mut().unwrap();
        let name = format!("{}.{at}.{input}.mutant", graph.node[at].input[input]);
        graph.initializer.push(tensor::from_floats(&name, &values, float));
        graph.node[at].input[input] = name;
        Some(model)
    }

    /// Returns a stored constant that a node reads, also through Identity nodes.
    pub fn constant(&self, at: usize, input: usize) -> Option<(ArrayD<f64>, Float)> {
        let graph = self.model.graph.as_ref().unwrap();
        let mut name = self.node(at).input.get(input)?;
        let producer =
            |name: &String| graph.node.iter().find(|node| node.output.first() == Some(name));
        while let Some(alias) = producer(name).filter(|node| node.op_type() == "Identity") {
            name = &alias.input[0];
        }
        let stored = graph.initializer.iter().find(|tensor| tensor.name() == name);
        let value = |node: &NodeProto| {
            let value = node.attribute.iter().find(|attribute| attribute.name() == "value")?;
            value.t.as_deref().cloned()
        };
        let tensor = stored.cloned().or_else(|| value(producer(name)?))?;
        let float = Float::from_onnx(tensor.data_type())?;
        Some((tensor::floats(&tensor, &Storage::default()).ok()?, float))
    }

    /// Returns the model with another list of integers as an attribute of one of its nodes.
    pub fn with_list(
        &self,
        at: usize,
        name: &str,
        change: impl FnOnce(&mut [i64]),
    ) -> Option<ModelProto> {
        let mut model = self.model.clone();
        let node = &mut model.graph.as_mut().unwrap().node[at];
        change(&mut list(node, name)?.ints);
        Some(model)
    }

    /// Returns what the fuser makes of `model`.
    pub fn rewritten(&self, model: &ModelProto) -> Option<Rewritten> {
        let output = self.reader.graph.value(self.block.region.output).name;
        rewritten(model, output)
    }

    /// Returns what verification says of `mutant` as a replacement of the block. Whether it differs
    /// at all is decided without asking verification.
    pub fn fate(&self, mutant: &Rewritten) -> Fate {
        if !self.is_different(mutant) {
            return Fate::Same;
        }
        if !mutant.fused.is_rounded(self.float) {
            return Fate::CaughtByRounding;
        }
        match self.proof(mutant) {
            Ok(_) => Fate::Missed,
            Err(unproved) if unproved.is_wrong() => Fate::CaughtByProof,
            Err(_) => Fate::LeftAlone,
        }
    }

    /// Proves `mutant` against the nodes of the file. Verification itself decides which inputs show
    /// everything, whatever the mutant's own plan says. In one piece and cut as often as possible,
    /// the proof must come to the same verdict.
    pub fn proof(&self, mutant: &Rewritten) -> Result<f64, Unproved> {
        let output = self.reader.graph.value(self.block.region.output).name;
        let claim = mutant.beliefs.claim(self.reader.graph, output, mutant.fused.side()).unwrap();
        let (original, limits) = (original(self.reader), Limits::of_reading());
        let [whole, cut] = [usize::MAX, 1].map(|most| prove_by(&original, &claim, limits, most));
        // Which of several trials fails first, and so the error, may differ.
        assert_eq!(whole.is_ok(), cut.is_ok(), "{output}: {whole:?} {cut:?}");
        whole
    }

    /// Returns the old nodes of the block, and the new ones.
    pub fn sides(&self) -> [Side; 2] {
        let side = self.right.fused.side();
        let claim =
            claims(self.reader, self.meanings, (self.block, &[self.block.region.output]), &side)
                .swap_remove(0);
        [self.old_side(&claim, claim.output).unwrap(), claim.new]
    }

    /// Returns the old nodes that compute `output` from the roots of `claim`, if that can be done.
    fn old_side(&self, claim: &Claim, output: ValueId) -> Option<Side> {
        let original = original(self.reader);
        let cone = original.cone(output, &claim.roots, &IdMap::default()).ok()?;
        old_side(&original, &cone, &claim.borders).ok()
    }

    /// Returns whether the engine had to infer sizes.
    pub fn asked_for_sizes(&self) -> bool {
        self.reader.sizes.has_asked_engine()
    }

    pub fn probe(&self) -> &[(String, ArrayD<f64>)] {
        &self.probe
    }

    /// Returns the probe and, if a mutant starts further down, what the old nodes make of it:
    /// a fuser that misreads an arm leaves that arm as it is, and may rightly add its output.
    fn probe_of(&self, mutant: &Rewritten) -> Vec<(String, ArrayD<f64>)> {
        let side = self.right.fused.side();
        let claim =
            claims(self.reader, self.meanings, (self.block, &[self.block.region.output]), &side)
                .swap_remove(0);
        let is_probed = |root: &&String| self.probe.iter().any(|(name, _)| name == *root);
        let inner = mutant.beliefs.roots.iter().filter(|root| !is_probed(root));
        let inner = inner.filter_map(|root| {
            let old = self.old_side(&claim, self.reader.graph.find(root)?)?;
            Some((root.clone(), naive::run(&old, &self.probe).ok()?))
        });
        self.probe.iter().cloned().chain(inner).collect()
    }

    /// Returns whether the mutant writes other weights, or computes another function.
    fn is_different(&self, mutant: &Rewritten) -> bool {
        let (made, right) = (&mutant.fused, &self.right.fused);
        if (&made.nodes, &made.exact) == (&right.nodes, &right.exact) {
            return made.tensors != right.tensors;
        }
        match naive::run(&made.side(), &self.probe_of(mutant)) {
            // Nodes without a meaning cannot be run.
            Err(_) => true,
            Ok(found) => difference(&self.expected, &found) > NOTHING,
        }
    }
}

/// Bound below which a difference counts as none: sums in another order differ by as much, relative
/// to the largest value.
pub const NOTHING: f64 = 1e-13;

/// Returns the difference relative to the largest value, or infinity if the shapes differ.
pub fn difference(expected: &ArrayD<f64>, found: &ArrayD<f64>) -> f64 {
    if expected.shape() != found.shape() {
        return f64::INFINITY;
    }
    let largest = expected.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    let differences = expected.iter().zip(found).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max) / largest
}

/// Returns random roots, three outputs larger along each axis than those of the proof, unless
/// the block is right for some sizes only.
fn probe(block: &Block, claim: &Claim, reader: &Reader) -> Vec<(String, ArrayD<f64>)> {
    let mut random = Random::new(99);
    let weighted = |part: &&Term<Geometry>| part.kind == TermKind::Conv;
    let any = block.terms.iter().find(weighted).unwrap();
    let scattered = block.terms.iter().find(|part| part.map.kind == ConvKind::ConvTranspose);
    let original = original(reader);
    let ends = claim.borders.iter().map(|border| (border.output, border.inner)).collect();
    let cone = original.cone(claim.output, &claim.roots, &ends).unwrap();
    let trials = choose(&original, &cone, claim).unwrap();
    let is_sized = |condition: &Condition| match condition.property {
        Property::Size(axis, _) => axis != 1,
        Property::Integers(_) => true,
        Property::Rank(_) => false,
    };
    let is_free = !claim.valid.conditions().iter().any(is_sized);
    let mut roots = Vec::new();
    for (&root, shape) in cone.roots.iter().zip(&trials[0].shapes) {
        let mut shape = shape.clone();
        let is_root = |part: &&Term<Geometry>| part.root == root;
        let reads = block.terms.iter().filter(is_root).find(weighted);
        let order = reads.map_or(&any.map.output, |part| &part.map.input);
        shape[order.axis(0)] = 1;
        for axis in 0..any.map.windows.len() {
            let window = reads.map_or(Window::IDENTITY, |part| part.map.window(axis));
            let stride = match scattered {
                Some(_) if reads.is_some() => 1,
                Some(scattered) => scattered.map.window(axis).stride,
                None => window.stride,
            };
            if is_free {
                shape[order.axis(axis + 2)] += 3 * stride as usize;
            }
        }
        let Array::Float(values) = random.floats(&shape) else { panic!("roots are floats") };
        roots.push((reader.graph.value(root).name.to_owned(), values));
    }
    roots
}

pub fn list<'n>(node: &'n mut NodeProto, name: &str) -> Option<&'n mut AttributeProto> {
    node.attribute.iter_mut().find(|attribute| attribute.name() == name)
}

impl Rewritten {
    /// Returns the rewrite with other weights in the place of those at `at`, rounded correctly.
    pub fn with_exact(&self, at: usize, values: ArrayD<f64>, float: Float) -> Self {
        let mut changed = self.clone();
        let name = changed.fused.exact[at].0.clone();
        *changed.tensor(&name) = tensor::from_floats(&name, &values, float);
        changed.fused.exact[at].1 = values;
        changed
    }

    /// Returns the rewrite with other weights about to be written than those that are proved.
    pub fn with_written(&self, at: usize, change: impl FnOnce(&mut TensorProto)) -> Self {
        let mut changed = self.clone();
        let name = changed.fused.exact[at].0.clone();
        change(changed.tensor(&name));
        changed
    }

    fn tensor(&mut self, name: &str) -> &mut TensorProto {
        self.fused.tensors.iter_mut().find(|tensor| tensor.name() == name).unwrap()
    }

    /// Returns the rewrite with another node at `at`.
    pub fn with_node(&self, at: usize, change: impl FnOnce(&mut NodeProto)) -> Self {
        let mut changed = self.clone();
        change(&mut changed.fused.nodes[at]);
        changed
    }
}
