//! Batch norms in training mode, as nodes that tract supports.

use crate::engine::dialect::steps::Steps;
use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::onnx::write;

/// Writes out a batch norm in training mode, which tract takes for one at inference, with the
/// statistics of its own batch. These are taken over all axes but the channel axis, for every
/// rank at once:
///
/// ```text
/// μ = mean(x),  v = mean((x − μ)²),  y = (x − μ)/sqrt(v + ε)·γ + β
/// ```
///
/// The running statistics are `r·m + μ·(1 − m)` and `r·m + v·(1 − m)` with momentum m. All is
/// computed in float64. No standard defines the further outputs that a norm had before operator
/// set 14, and nothing makes them here.
pub fn norm_by_batch(norm: NodeProto, opset: i64) -> Vec<NodeProto> {
    let number = |name: &str, default: f32| {
        let attribute = norm.attribute.iter().find(|attribute| attribute.name() == name);
        attribute.map_or(default, AttributeProto::f)
    };
    let per_position = norm.attribute.iter().find(|attribute| attribute.name() == "spatial");
    if norm.input.len() != 5 || per_position.is_some_and(|spatial| spatial.i() == 0) {
        let op_type = Some("BatchNormalization in training mode".into());
        return vec![NodeProto { op_type, ..norm }];
    }
    let output = norm.output.first().map_or("", String::as_str);
    let mut steps = Steps::called(format!("{output}.batch"));
    let [x, scale, bias, mean, variance] =
        [0, 1, 2, 3, 4].map(|index| norm.input.get(index).map_or("", String::as_str));
    let wide = steps.wide(x);
    // [N, C, L], where L is the product of the remaining sizes, if there are any.
    let shape = steps.integers(&[0, 0, -1]);
    let flat = steps.step("Reshape", &[&wide, &shape]);
    let batch_mean = mean_of_batch(&mut steps, &flat, opset);
    let centred = steps.step("Sub", &[&flat, &batch_mean]);
    let squares = steps.step("Mul", &[&centred, &centred]);
    let batch_variance = mean_of_batch(&mut steps, &squares, opset);
    let epsilon = steps.float(number("epsilon", 1e-5).into());
    let sum = steps.step("Add", &[&batch_variance, &epsilon]);
    let deviation = steps.step("Sqrt", &[&sum]);
    let column = steps.integers(&[-1, 1]);
    let [scale, bias] = [scale, bias].map(|vector| {
        let wide = steps.wide(vector);
        steps.step("Reshape", &[&wide, &column])
    });
    // With its axes reversed, x aligns with [C, 1] in its channels, whatever its rank.
    let mut value = steps.step("Transpose", &[&wide]);
    for (op, column) in [("Sub", &batch_mean), ("Div", &deviation), ("Mul", &scale), ("Add", &bias)]
    {
        value = steps.step(op, &[&value, column]);
    }
    let value = steps.step("Transpose", &[&value]);
    steps.nodes.push(write::node("CastLike", "", &[&value, x], output, Vec::new()));
    let momentum = f64::from(number("momentum", 0.9));
    let running = [(1, mean, &batch_mean), (2, variance, &batch_variance)];
    for (index, old, new) in running {
        let Some(name) = norm.output.get(index).filter(|name| !name.is_empty()) else { continue };
        let row = steps.integers(&[-1]);
        let new = steps.step("Reshape", &[new, &row]);
        let (wide, kept, taken) =
            (steps.wide(old), steps.float(momentum), steps.float(1.0 - momentum));
        let (kept, taken) =
            (steps.step("Mul", &[&wide, &kept]), steps.step("Mul", &[&new, &taken]));
        let sum = steps.step("Add", &[&kept, &taken]);
        steps.nodes.push(write::node("CastLike", "", &[&sum, old], name, Vec::new()));
    }
    steps.nodes
}

/// Returns the `[C, 1]` means of the `[N, C, L]` tensor `of`.
fn mean_of_batch(steps: &mut Steps, of: &str, opset: i64) -> String {
    let rows = mean_along(steps, of, opset, 2, 1);
    mean_along(steps, &rows, opset, 0, 0)
}

fn mean_along(steps: &mut Steps, of: &str, opset: i64, axis: i64, keepdims: i64) -> String {
    let mut attributes = vec![write::int("keepdims", keepdims)];
    // ReduceMean's axes are an input since operator set 18.
    if opset < 18 {
        attributes.push(write::ints("axes", vec![axis]));
        return steps.push("ReduceMean", &[of], attributes);
    }
    let axes = steps.integers(&[axis]);
    steps.push("ReduceMean", &[of, &axes], attributes)
}
