//! What an operator does to a small difference of its operands: it passes it on, flattens it,
//! saturates, or makes a jump of it.
//!
//! Knows operators by their names; knows no tensors.

use std::collections::HashSet;

use crate::onnx::float::Float;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::node::Node;

/// Operators whose result jumps where an operand passes a value: a tie, a threshold, another
/// operand.
const STEPS: &[&str] = &[
    "ArgMax",
    "ArgMin",
    "Ceil",
    "Compress",
    "DynamicQuantizeLinear",
    "Equal",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "Hardmax",
    "Less",
    "LessOrEqual",
    "Mod",
    "NonMaxSuppression",
    "NonZero",
    "QuantizeLinear",
    "Round",
    "Shrink",
    "Sign",
    "ThresholdedRelu",
    "TopK",
    "Unique",
];

/// Operators whose result may be the same, or 0 within rounding, for all usual operands.
const FLATTENS: &[&str] = &[
    "Clip",
    "Elu",
    "Erf",
    "Exp",
    "HardSigmoid",
    "HardSwish",
    "LogSoftmax",
    "Max",
    "Min",
    "Mul",
    "Relu",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
    "Where",
];

/// Operators with weights or a state: what is in front of them is another layer.
const LAYERS: &[&str] = &[
    "Conv",
    "ConvTranspose",
    "DeformConv",
    "Einsum",
    "GRU",
    "Gemm",
    "If",
    "LSTM",
    "Loop",
    "MatMul",
    "RNN",
    "Scan",
];

/// Operators that change no values, except for rounding.
const MOVES: &[&str] =
    &["Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"];

/// How an operator saturates whose result has the shape of its operand: near an end of its range
/// the result moves less and less with the operand, and is rounded like the range, not like what
/// is left beside the end.
#[derive(Debug, Clone, Copy)]
pub struct Saturation {
    /// How fast an element of the result moves, as a function of its value, if all elements of
    /// the operand move by at most 1, up or down.
    pub slope: fn(f64) -> f64,
    /// The factor by which `slope` is multiplied.
    pub steepness: f64,
    /// The largest magnitude that is rounded inside the operator; 0 where that is its operand or
    /// its result.
    pub range: f64,
}

/// Returns how the result of the node saturates; `None` if it does not.
pub fn saturation(node: &Node) -> Option<Saturation> {
    let (slope, steepness, range): (fn(f64) -> f64, f64, f64) = match node.standard_op()? {
        // It ends at 0, where its relative error stays the absolute error of the operand.
        "Exp" => (|y| y, 1.0, 0.0),
        // e^(−x²) ≤ (1 − y²)^(π/4), after Pólya.
        "Erf" => (
            |y| (1.0 - y * y).max(0.0).powf(std::f64::consts::FRAC_PI_4),
            std::f64::consts::FRAC_2_SQRT_PI,
            1.0,
        ),
        "HardSigmoid" => {
            let alpha = node.attribute("alpha").and_then(|alpha| alpha.f).unwrap_or(0.2);
            (|_| 1.0, f64::from(alpha).abs(), 1.0)
        }
        // Δy = Δx − Σ p·Δx.
        "LogSoftmax" => (|_| 1.0, 2.0, 0.0),
        "Sigmoid" => (|y| y * (1.0 - y), 1.0, 1.0),
        // |Δy| = y·|(1 − y)·Δx − Σ p·Δx over the others| ≤ 2·y·(1 − y)·max |Δx|.
        "Softmax" => (|y| y * (1.0 - y), 2.0, 1.0),
        "Softplus" => (|y| -(-y).exp_m1(), 1.0, 1.0),
        "Softsign" => (|y| (1.0 - y.abs()).powi(2), 1.0, 1.0),
        "Tanh" => (|y| 1.0 - y * y, 1.0, 1.0),
        _ => return None,
    };
    Some(Saturation { slope, steepness, range })
}

/// Returns the nodes that saturate between the last layers and `ends`.
pub fn closing(graph: &Graph, ends: &[ValueId]) -> HashSet<NodeId> {
    let nodes = behind_layers(graph, ends).into_iter();
    nodes.filter(|&id| saturation(graph.node(id)).is_some()).collect()
}

/// Returns the tensor whose values `end` has, in another order or shape.
pub fn unmoved(graph: &Graph, end: ValueId) -> ValueId {
    let mover = |id: ValueId| graph.value(id).producer.map(|producer| graph.node(producer));
    let moved = |id: &ValueId| {
        let node = mover(*id)?;
        let moves = node.standard_op().is_some_and(|op| MOVES.contains(&op)) && !is_step(node);
        if moves { node.input(0) } else { None }
    };
    std::iter::successors(Some(end), moved).last().unwrap_or(end)
}

/// Returns whether the result of the node jumps where an operand passes a value.
pub fn is_step(node: &Node) -> bool {
    let Some(op) = node.standard_op() else { return false };
    let to_float = || i32::try_from(node.int("to", 0)).ok().and_then(Float::from_onnx).is_some();
    STEPS.contains(&op) || (op == "Cast" && !to_float())
}

/// Returns the operands of nodes that flatten values between the last layers and `ends`: where
/// the values of `ends` are all the same, there is still something to be seen in these.
pub fn fronts(graph: &Graph, ends: &[ValueId]) -> Vec<ValueId> {
    let nodes = behind_layers(graph, ends).into_iter().map(|id| graph.node(id));
    let flatten = nodes.filter(|node| node.standard_op().is_some_and(|op| FLATTENS.contains(&op)));
    let fronts: HashSet<ValueId> =
        flatten.flat_map(|node| &node.inputs).flatten().copied().collect();
    let mut fronts: Vec<ValueId> = fronts.into_iter().filter(|id| !ends.contains(id)).collect();
    fronts.sort_unstable();
    fronts
}

/// Returns the nodes between the last layers and `ends`.
fn behind_layers(graph: &Graph, ends: &[ValueId]) -> HashSet<NodeId> {
    let (mut open, mut found) = (ends.to_vec(), HashSet::new());
    while let Some(tensor) = open.pop() {
        let Some(producer) = graph.value(tensor).producer else { continue };
        let node = graph.node(producer);
        let is_layer = node.standard_op().is_some_and(|op| LAYERS.contains(&op));
        if !is_layer && found.insert(producer) {
            open.extend(node.inputs.iter().flatten());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::onnx::model::Model;
    use crate::onnx::storage::Storage;
    use crate::onnx::write::{double_input, model, node};

    fn slope(op: &str) -> impl Fn(f64) -> f64 {
        let nodes = vec![node(op, "", &["x"], "y", vec![])];
        let bytes = model(17, vec![double_input("x", 1)], nodes, vec![], &["y"]).encode_to_vec();
        let model = Model::index(bytes.into(), Storage::default()).unwrap();
        let graph = &Graph::read_all(&model).unwrap()[0];
        let saturation = saturation(graph.nodes().next().unwrap().1).unwrap();
        move |y| saturation.steepness * (saturation.slope)(y)
    }

    /// ∫ exp(−t²) by the rule of the middle.
    fn erf(x: f64) -> f64 {
        let step = x / 2000.0;
        let middles = (0..2000).map(|i| (-((f64::from(i) + 0.5) * step).powi(2)).exp());
        std::f64::consts::FRAC_2_SQRT_PI * step * middles.sum::<f64>()
    }

    /// What operators make of a small step is what their slope says, or up to half of it less.
    #[test]
    fn slopes_are_those_of_the_functions() {
        type Function = fn(f64) -> f64;
        let sigmoid: Function = |x| 1.0 / (1.0 + (-x).exp());
        let cases: &[(&str, Function, f64)] = &[
            ("Erf", erf, 1.0),
            ("Exp", f64::exp, 1.0),
            ("HardSigmoid", |x| (0.2 * x + 0.5).clamp(0.0, 1.0), 1.0),
            ("Sigmoid", sigmoid, 1.0),
            // Of two logits, of which one moves up and one down.
            ("Softmax", sigmoid, 2.0),
            ("Softplus", |x| x.exp().ln_1p(), 1.0),
            ("Softsign", |x| x / (1.0 + x.abs()), 1.0),
            ("Tanh", f64::tanh, 1.0),
        ];
        let step = 1e-5;
        for (op, function, moved) in cases {
            let slope = slope(op);
            for x in [-2.4, -1.0, -0.3, 0.2, 0.9, 1.3, 2.2] {
                let rise = (function(x + moved * step) - function(x - moved * step)) / (2.0 * step);
                let said = slope(function(x));
                assert!(rise <= said * 1.0001 && rise >= 0.5 * said, "{op} at {x}: {rise}, {said}");
            }
        }
        // Of two logits, the one that loses.
        let rise = |x: f64| 2.0 * sigmoid(-x);
        assert!([-9.0, 0.0, 9.0].iter().all(|&x| rise(x) <= slope("LogSoftmax")(-sigmoid(x))));
    }
}
