//! Time and allocations of each stage of a conversion: `cargo bench`.
//!
//! `scan` reads a model and its graph, `plan` finds its blocks, `fuse` multiplies their
//! kernels out, `splice` writes the new model into memory. The argument is the number of small
//! blocks in a chain or, for `fuse`, the number of channels of a single block.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::sync::Arc;

use acb_fuse::TrainingMode;
use acb_fuse::emit::nodes::FusedNodes;
use acb_fuse::engine::InputShapes;
use acb_fuse::facts::constants::Constants;
use acb_fuse::facts::dependence::Dependence;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::{NodeProto, TensorProto};
use acb_fuse::onnx::splice;
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use acb_fuse::onnx::write::{double_input, ints, model, node};
use acb_fuse::ops::meanings::Meanings;
use acb_fuse::ops::reader::{Reader, Training};
use acb_fuse::pipeline::edits::{BlockNodes, Changes, rewrite};
use acb_fuse::pipeline::fuse;
use acb_fuse::plan::{Block, BlockNames, Plan, Wanted, plan};
use acb_fuse::verify::inputs::Random;
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use ndarray::{ArrayD, IxDyn};
use prost::Message;
use prost::bytes::Bytes;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const BLOCKS: [usize; 3] = [10, 100, 1000];
const CHANNELS: [usize; 3] = [64, 128, 256];

fn main() {
    divan::main();
}

#[divan::bench(args = BLOCKS)]
fn scan(bencher: Bencher, blocks: usize) {
    let bytes = chain(blocks, 4);
    bencher.counter(ItemsCount::new(blocks)).bench(|| {
        let model = Model::index(bytes.clone(), Storage::default()).unwrap();
        black_box(Graph::read_all(&model).unwrap().len())
    });
}

#[divan::bench(args = BLOCKS, name = "plan")]
fn find(bencher: Bencher, blocks: usize) {
    of(chain(blocks, 4), |reader| {
        bencher.counter(ItemsCount::new(blocks)).bench(|| {
            let meanings = Meanings::of(reader).unwrap();
            black_box(planned(reader, &meanings).blocks.len())
        });
    });
}

#[divan::bench(args = CHANNELS, name = "fuse")]
fn multiply(bencher: Bencher, channels: usize) {
    of(chain(1, channels), |reader| {
        let meanings = Meanings::of(reader).unwrap();
        let plan = planned(reader, &meanings);
        let read = channels * channels * 15 * 4;
        bencher.counter(BytesCount::new(read)).bench(|| {
            let fused = fused(reader, &meanings, &plan, &plan.blocks[0]);
            let pieces = fused.weights.iter().flat_map(|weights| {
                weights.pieces().map(|piece| weights.rounded(piece).unwrap().len())
            });
            black_box(pieces.sum::<usize>())
        });
    });
}

#[divan::bench(args = BLOCKS, name = "splice")]
fn write(bencher: Bencher, blocks: usize) {
    of(chain(blocks, 4), |reader| {
        let meanings = Meanings::of(reader).unwrap();
        let plan = planned(reader, &meanings);
        let fused: Vec<FusedNodes> =
            plan.blocks.iter().map(|block| fused(reader, &meanings, &plan, block)).collect();
        let changed =
            plan.blocks.iter().zip(&fused).map(|(block, fused)| BlockNodes::of(block, fused));
        let changes = [Changes { blocks: changed.collect(), eval_forms: vec![] }];
        let graphs = std::slice::from_ref(reader.graph);
        bencher.counter(ItemsCount::new(blocks)).bench(|| {
            let edits = rewrite(graphs, &changes).unwrap().edits(vec![], vec![], |_| None);
            let mut new = Vec::with_capacity(reader.graph.model.bytes().len());
            splice::write(reader.graph.model.bytes(), &edits, &mut new).unwrap();
            black_box(new.len())
        });
    });
}

/// Calls `measure` with a reader of the model's main graph.
fn of(bytes: Bytes, measure: impl FnOnce(&Reader)) {
    let model = Model::index(bytes, Storage::default()).unwrap();
    let graphs = Graph::read_all(&model).unwrap();
    let constants = Constants::find_all(&graphs, false).unwrap();
    let shapes = InputShapes::new();
    let dependence = Dependence::find_all(&graphs, constants.iter().map(Arc::as_ref));
    let training = Training { asked: TrainingMode::Auto, dependence: &dependence[0] };
    measure(&Reader::new(&graphs[0], &constants[0], &shapes, training));
}

fn planned(reader: &Reader, meanings: &Meanings) -> Plan {
    plan(reader, meanings, &mut BlockNames::of(reader.graph), Wanted::default())
}

fn fused(reader: &Reader, meanings: &Meanings, plan: &Plan, block: &Block) -> FusedNodes {
    fuse::fused(reader, block, &fuse::terms(reader, meanings, plan, block).unwrap()).unwrap()
}

/// Builds a chain of ACBs with `channels` channels each, every one with its norms and a Relu.
fn chain(blocks: usize, channels: usize) -> Bytes {
    let mut made = Made { random: Random::new(1), nodes: vec![], tensors: vec![] };
    let mut input = "x".to_owned();
    for block in 0..blocks {
        input = made.block(&format!("block{block}"), &input, channels);
    }
    let inputs = vec![double_input("x", 4)];
    let model = model(17, inputs, made.nodes, made.tensors, &[&input]);
    model.encode_to_vec().into()
}

struct Made {
    random: Random,
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
}

impl Made {
    fn block(&mut self, name: &str, input: &str, channels: usize) -> String {
        let arms = [("square", [3, 3]), ("horizontal", [1, 3]), ("vertical", [3, 1])];
        let [square, horizontal, vertical] = arms.map(|(arm, taps)| {
            let (arm, kernel) = (format!("{name}.{arm}"), format!("{name}.{arm}.weight"));
            self.tensor(&kernel, &[channels, channels, taps[0], taps[1]]);
            let pads = [taps[0] / 2, taps[1] / 2].map(|pad| pad as i64);
            let pads = ints("pads", [pads, pads].concat());
            self.nodes.push(node("Conv", &arm, &[input, &kernel], &arm, vec![pads]));
            let norm = format!("{arm}.norm");
            let parts = ["scale", "shift", "mean", "variance"].map(|part| {
                let part = format!("{norm}.{part}");
                self.tensor(&part, &[channels]);
                part
            });
            let [scale, shift, mean, variance] = &parts;
            let inputs = [&arm, scale, shift, mean, variance].map(String::as_str);
            self.nodes.push(node("BatchNormalization", &norm, &inputs, &norm, vec![]));
            norm
        });
        let [two, three, output] = ["two", "three", "relu"].map(|sum| format!("{name}.{sum}"));
        self.nodes.push(node("Add", &two, &[&square, &horizontal], &two, vec![]));
        self.nodes.push(node("Add", &three, &[&two, &vertical], &three, vec![]));
        self.nodes.push(node("Relu", &output, &[&three], &output, vec![]));
        output
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) {
        // Positive, since variances are.
        let numbers = ArrayD::from_shape_simple_fn(IxDyn(shape), || self.random.uniform().abs());
        self.tensors.push(tensor::from_floats(name, &numbers, Float::F32));
    }
}
