//! Rewrites one node for tract: what tract refuses, panics on or computes wrongly becomes other
//! nodes that compute the same.
//!
//! Knows the node and its operator set, and integer constants by name; knows no graph and no
//! file.

use crate::engine::dialect::einsum::outer_product;
use crate::engine::dialect::norms::norm_by_batch;
use crate::engine::dialect::resized::resized;
use crate::onnx::float::Float;
use crate::onnx::model::is_default_domain;
use crate::onnx::proto::NodeProto;
use crate::onnx::tensor;
use crate::onnx::training::{self, NodeMode};
use crate::onnx::windows::{self, AutoPad, WindowAttributes};
use crate::onnx::write::{self, AxisSlice, CircularPart};

/// Whether `node` is known to be at inference, or has no mode. `integers` looks up constants.
pub fn evaluates(
    node: &NodeProto,
    opset: i64,
    integers: &dyn Fn(&str) -> Option<Vec<i64>>,
) -> bool {
    training::mode(node, opset).evaluates(integers) == Some(true)
}

/// Returns a norm or dropout, which is at inference, with its first output alone: a dropout
/// becomes an `Identity`. Every other node is returned as it is.
pub fn without_mode(node: NodeProto) -> NodeProto {
    let mut node = training::without_mode(node);
    if !training::is_dropout(&node) {
        return node;
    }
    node.output.truncate(1);
    write::into_identity(node)
}

/// Reduces a norm or dropout at inference to what it computes: a norm keeps its first output and
/// its epsilon, a dropout becomes an `Identity`. Every other node is returned as it is. Returns
/// `None` if the node is in training mode or its mode is not known. `integers` looks up
/// constants.
pub fn at_inference(
    node: NodeProto,
    opset: i64,
    integers: &dyn Fn(&str) -> Option<Vec<i64>>,
) -> Option<NodeProto> {
    if !training::has_mode(&node) {
        return Some(node);
    }
    if !evaluates(&node, opset, integers) {
        return None;
    }
    let mut node = without_mode(node);
    let stays = |name: &str| matches!(name, "epsilon" | "is_test");
    node.attribute.retain(|attribute| stays(attribute.name()));
    Some(node)
}

/// Rewrites `node` without anything that tract is known to mishandle:
///
/// - empty names at the end of its inputs (tract panics);
/// - a Gemm's bias (supported in float32 only);
/// - negative pads (tract panics) and circular padding (not supported);
/// - a value to pad with in a mode that has none (tract takes the wrong mode);
/// - pads beside `auto_pad` (tract uses these) and empty attributes of windows (refused);
/// - a ConstantOfShape without a value (tract's zeros are float64 instead of float32);
/// - an Einsum that sums nothing (tract does not broadcast sizes of 1);
/// - windows that no engine computes (a pool of padding alone is −∞ in tract), or that are larger
///   than those of any network: their operators get unknown names;
/// - training mode (never read): norms are written out, dropouts get an unknown operator.
///
/// `integers` looks up constants.
pub fn node(
    mut node: NodeProto,
    opset: i64,
    integers: &dyn Fn(&str) -> Option<Vec<i64>>,
) -> Vec<NodeProto> {
    while node.input.last().is_some_and(String::is_empty) {
        node.input.pop();
    }
    if windows::auto_pad(&node) != Some(AutoPad::NotSet) {
        node.attribute.retain(|attribute| attribute.name() != "pads");
    }
    // The pads of a scalar are an empty list, and a Pad must have pads.
    if node.op_type() != "Pad" {
        node.attribute.retain(|attribute| !windows::is_left_out(attribute));
    }
    match node.op_type() {
        "Pad" => pad(node, opset, integers),
        "Gemm" => gemm(node, opset),
        "Einsum" => outer_product(node, opset),
        "Slice" if opset >= 10 => slice(node, integers),
        "ConstantOfShape" if node.attribute.is_empty() => {
            let zero = ndarray::ArrayD::zeros(vec![1]);
            let zero = tensor::from_floats("", &zero, Float::F32);
            node.attribute.push(write::tensor("value", zero));
            vec![node]
        }
        "BatchNormalization" if training::mode(&node, opset) == NodeMode::Trains => {
            norm_by_batch(node, opset)
        }
        // Where it matters, tract reports an operator that it does not know.
        "AveragePool" | "LpPool" | "MaxPool" if WindowAttributes::of(&node, None).is_err() => {
            node.op_type = Some("Pool of no windows".into());
            vec![node]
        }
        "AveragePool" | "Conv" | "ConvTranspose" | "LpPool" | "MaxPool"
            if windows::are_boundless(&node) =>
        {
            node.op_type = Some("Windows beyond all sizes".into());
            vec![node]
        }
        "Dropout" if training::mode(&node, opset) == NodeMode::Trains => {
            node.op_type = Some("Dropout in training mode".into());
            vec![node]
        }
        _ => vec![node],
    }
}

/// Stores the ends of a `Slice` that mean "to the end" in a Constant of their own: tract
/// recognizes them only in stored integers, not behind a Cast or Reshape.
fn slice(mut node: NodeProto, integers: &dyn Fn(&str) -> Option<Vec<i64>>) -> Vec<NodeProto> {
    let is_far = |end: &i64| end.unsigned_abs() >= i32::MAX.unsigned_abs().into();
    let known = node.input.get(2).and_then(|ends| integers(ends));
    let output = node.output.first().cloned().unwrap_or_default();
    let (Some(known), Some(ends)) =
        (known.filter(|ends| ends.iter().any(is_far)), node.input.get_mut(2))
    else {
        return vec![node];
    };
    *ends = format!("{output}.ends, stored");
    let stored = write::tensor("value", tensor::from_integers("", &known));
    vec![write::node("Constant", "", &[], ends, vec![stored]), node]
}

/// Scalar constants with their names.
type NamedFactors = Vec<(String, f64)>;

/// Rewrites a node for float64, with the constants that it then reads. What the engine has in
/// float32 alone is written otherwise: factors that are attributes become constants, Gemm
/// becomes `α·A·B + β·C`, LeakyRelu becomes `relu(x) − α·relu(−x)`, and a Resize its steps.
/// `numbers` looks up constants by name. Every other node is returned as it is.
pub fn in_float64(
    node: NodeProto,
    numbers: &dyn Fn(&str) -> Option<Vec<f64>>,
) -> (Vec<NodeProto>, NamedFactors) {
    match node.op_type() {
        _ if !is_default_domain(node.domain()) => (vec![node], Vec::new()),
        "Gemm" => gemm_without_factors(node),
        "LeakyRelu" => leaky_relu_without_factor(&node),
        "Resize" | "Upsample" => (resized(node, numbers), Vec::new()),
        _ => (vec![node], Vec::new()),
    }
}

fn leaky_relu_without_factor(node: &NodeProto) -> (Vec<NodeProto>, NamedFactors) {
    let [x, y] = [&node.input, &node.output].map(|names| names.first().map_or("", String::as_str));
    let alpha = node.attribute.iter().find(|attribute| attribute.name() == "alpha");
    let alpha = f64::from(alpha.map_or(0.01, |alpha| alpha.f()));
    let called = |what: &str| format!("{y}.{what}");
    let [above, negated, below, scaled, factor] =
        ["above", "negated", "below", "scaled", "alpha"].map(called);
    let step =
        |op: &str, inputs: &[&str], output: &str| write::node(op, "", inputs, output, vec![]);
    let nodes = vec![
        step("Relu", &[x], &above),
        step("Neg", &[x], &negated),
        step("Relu", &[&negated], &below),
        step("Mul", &[&below, &factor], &scaled),
        step("Sub", &[&above, &scaled], y),
    ];
    (nodes, vec![(factor, alpha)])
}

fn gemm_without_factors(mut node: NodeProto) -> (Vec<NodeProto>, NamedFactors) {
    let mut factor = |name: &str| {
        let at = node.attribute.iter().position(|attribute| attribute.name() == name);
        f64::from(at.map_or(1.0, |at| node.attribute.remove(at).f()))
    };
    let (alpha, beta) = (factor("alpha"), factor("beta"));
    if (alpha, beta) == (1.0, 1.0) {
        return (vec![node], Vec::new());
    }
    let output = std::mem::take(&mut node.output).into_iter().next().unwrap_or_default();
    let called = |what: &str| format!("{output}.{what}");
    let [product, scaled, shift] = ["product", "scaled", "shift"].map(called);
    let factors = [("alpha", alpha), ("beta", beta)].map(|(name, factor)| (called(name), factor));
    let [(alpha, _), (beta, _)] = &factors;
    let bias = node.input.get(2).cloned().filter(|bias| !bias.is_empty());
    node.input.truncate(2);
    node.output = vec![product.clone()];
    let step =
        |op: &str, inputs: &[&str], output: &str| write::node(op, "", inputs, output, vec![]);
    let nodes = match bias {
        None => vec![node, step("Mul", &[&product, alpha], &output)],
        Some(bias) => vec![
            node,
            step("Mul", &[&product, alpha], &scaled),
            step("Mul", &[&bias, beta], &shift),
            step("Add", &[&scaled, &shift], &output),
        ],
    };
    (nodes, factors.into())
}

/// Splits the bias of a `Gemm` off into an `Add`.
fn gemm(mut node: NodeProto, opset: i64) -> Vec<NodeProto> {
    let beta = node.attribute.iter().find(|attribute| attribute.name() == "beta");
    let is_scaled = beta.is_some_and(|beta| beta.f() != 1.0);
    let output = node.output.first().cloned().unwrap_or_default();
    // Before operator set 7, attributes say how the bias is broadcast.
    if node.input.len() != 3 || is_scaled || opset < 7 {
        return vec![node];
    }
    let (product, bias) = (format!("{output}.product"), node.input.remove(2));
    node.output = vec![product.clone()];
    vec![node, write::node("Add", "", &[&product, &bias], &output, Vec::new())]
}

fn pad(
    mut node: NodeProto,
    opset: i64,
    integers: &dyn Fn(&str) -> Option<Vec<i64>>,
) -> Vec<NodeProto> {
    let mode = node.attribute.iter().find(|attribute| attribute.name() == "mode");
    let mode = mode.map_or(Vec::new(), |mode| mode.s().to_vec());
    if !matches!(&mode[..], b"" | b"constant") {
        if node.input.len() == 3 {
            node.input.truncate(2);
        } else if let Some(value) = node.input.get_mut(2) {
            value.clear();
        }
    }
    let list = |index: usize, name: &str| {
        let attribute = node.attribute.iter().find(|attribute| attribute.name() == name);
        let given = || integers(node.input.get(index)?);
        attribute.map(|attribute| attribute.ints.clone()).or_else(given)
    };
    let Some(pads) = list(1, "pads") else {
        // Where it matters, tract reports an operator that it does not know.
        if mode == b"wrap" {
            node.op_type = Some("Pad (wrap)".into());
        }
        return vec![node];
    };
    let axes = list(3, "axes").unwrap_or_else(|| (0..pads.len() as i64 / 2).collect());
    let (begins, ends) = pads.split_at(pads.len() / 2);
    let sides = begins.iter().copied().zip(ends.iter().copied());
    let frame: Vec<(i64, (i64, i64))> = axes.into_iter().zip(sides).collect();
    let wraps = mode == b"wrap";
    if !wraps && pads.iter().all(|&pad| pad >= 0) {
        return vec![node];
    }
    // Elements are added first, then cropped.
    let output = node.output.first().cloned().unwrap_or_default();
    let padded = format!("{output}.padded");
    let mut nodes = if wraps {
        wrapped(opset, node.input.first().map_or("", String::as_str), &padded, &frame)
    } else {
        padded_by(node, &output, &padded, &pads)
    };
    let cuts = frame.iter().filter_map(|&(axis, pads)| AxisSlice::cropping(axis, pads));
    let cuts: Vec<AxisSlice> = cuts.collect();
    if cuts.is_empty() {
        nodes.push(identity(&padded, &output));
    } else {
        nodes.extend(write::slice(opset, &padded, &output, &cuts).with_constants());
    }
    nodes
}

/// Returns the `Pad` with its negative pads set to zero.
fn padded_by(mut pad: NodeProto, name: &str, padded: &str, pads: &[i64]) -> Vec<NodeProto> {
    let positive: Vec<i64> = pads.iter().map(|&pad| pad.max(0)).collect();
    pad.output = vec![padded.to_owned()];
    if let Some(attribute) = pad.attribute.iter_mut().find(|attribute| attribute.name() == "pads") {
        attribute.ints = positive;
        return vec![pad];
    }
    let name = format!("{name}.pads");
    if let Some(input) = pad.input.get_mut(1) {
        input.clone_from(&name);
    }
    vec![write::constant(tensor::from_integers(&name, &positive)), pad]
}

/// Writes circular padding as `Slice` and `Concat`: tract's Pad has no such mode.
fn wrapped(opset: i64, input: &str, output: &str, frame: &[(i64, (i64, i64))]) -> Vec<NodeProto> {
    let mut input = input.to_owned();
    let mut nodes = Vec::new();
    for &(axis, pads) in frame {
        let padded = format!("{output}.{axis}");
        let mut joined = Vec::new();
        for part in write::circular_parts(axis, pads) {
            joined.push(match part {
                CircularPart::Input => input.clone(),
                CircularPart::Slice(which, cut) => {
                    let name = format!("{padded}.{which}");
                    nodes.extend(write::slice(opset, &input, &name, &[cut]).with_constants());
                    name
                }
            });
        }
        if !joined.is_empty() {
            let joined: Vec<&str> = joined.iter().map(String::as_str).collect();
            nodes.push(write::concat(&joined, &padded, axis));
            input = padded;
        }
    }
    nodes.push(identity(&input, output));
    nodes
}

fn identity(input: &str, output: &str) -> NodeProto {
    write::node("Identity", "", &[input], output, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::AttributeProto;

    fn pad(mode: &'static str, pads: &[i64]) -> Vec<String> {
        let attributes = vec![write::string("mode", mode), write::ints("pads", pads.to_vec())];
        let pad = write::node("Pad", "", &["x"], "y", attributes);
        let nodes = node(pad, 10, &|_| None).into_iter();
        nodes.map(|node| node.op_type().to_owned()).filter(|op| op != "Constant").collect()
    }

    /// The bias of a Gemm becomes an Add only if that computes the same.
    #[test]
    fn gemms_lose_their_bias() {
        let cases: [(&[&str], f32, i64, usize); 4] = [
            (&["x", "w", "b"], 1.0, 7, 2),
            (&["x", "w", "b"], 0.5, 7, 1),
            (&["x", "w", "b"], 1.0, 6, 1),
            (&["x", "w"], 1.0, 11, 1),
        ];
        for (inputs, beta, opset, expected) in cases {
            let beta = AttributeProto { f: Some(beta), ..write::int("beta", 0) };
            let gemm = write::node("Gemm", "", inputs, "y", vec![beta]);
            let nodes = node(gemm, opset, &|_| None);
            assert_eq!(nodes.len(), expected, "{inputs:?} of opset {opset}");
            assert_eq!(nodes.last().map(|node| node.output.clone()), Some(vec!["y".to_owned()]));
        }
    }

    #[test]
    fn windows_lose_what_tract_takes_otherwise() {
        let attributes = || vec![write::ints("pads", vec![0; 4]), write::ints("strides", vec![])];
        for (word, expected) in [("", &["pads"][..]), ("SAME_LOWER", &["auto_pad"])] {
            let attributes = attributes().into_iter().chain([write::string("auto_pad", word)]);
            let conv = write::node("Conv", "", &["x", "w"], "y", attributes.collect());
            let nodes = node(conv, 20, &|_| None);
            let names = nodes[0].attribute.iter().map(AttributeProto::name);
            assert_eq!(names.collect::<Vec<_>>(), expected, "{word}");
        }
    }

    #[test]
    fn pads_become_what_tract_knows() {
        for (mode, pads, expected) in [
            ("reflect", [0, 1, 0, 1], &["Pad"][..]),
            ("constant", [0, -1, 0, 1], &["Pad", "Slice"]),
            ("constant", [0, i64::MIN, 0, i64::MIN], &["Pad", "Slice"]),
            ("wrap", [0, 1, 0, 0], &["Slice", "Concat", "Identity", "Identity"]),
            ("wrap", [0, 1, 0, -1], &["Slice", "Concat", "Identity", "Slice"]),
        ] {
            assert_eq!(pad(mode, &pads), expected, "{mode} {pads:?}");
        }
    }
}
