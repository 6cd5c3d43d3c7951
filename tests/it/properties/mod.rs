//! Tests of what holds of every conversion, and that verification finds what does not hold.

mod cut_models;
mod detects;
mod equalized;
mod int8;
mod invariants;
mod mutants;
mod runs;
mod slices;
pub mod table;

use acb_fuse::onnx::proto::ModelProto;
use acb_fuse::onnx::write;

/// Returns the model with the weights of its main graph in Constant nodes, as Paddle's exporter
/// writes them.
pub fn in_constant_nodes(model: &ModelProto) -> ModelProto {
    let mut model = model.clone();
    if let Some(graph) = &mut model.graph {
        let stored = std::mem::take(&mut graph.initializer);
        graph.node.splice(..0, stored.into_iter().map(write::constant));
    }
    model
}
