//! A batch norm in training mode as nodes that tract knows.

use crate::onnx::float::Float;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::onnx::tensor;
use crate::onnx::write;

/// A batch norm in training mode, which tract takes for one at inference, with the
/// statistics of its own batch: over all axes but the channels', for every rank at once,
///
/// ```text
/// μ = mean(x),  v = mean((x − μ)²),  y = (x − μ)/sqrt(v + ε)·γ + β
/// ```
///
/// and the running statistics `r·m + μ·(1 − m)`, `r·m + v·(1 − m)` with momentum m. All in
/// float64. What else a norm gave before operator set 14 no standard defines, and nothing
/// makes it here.
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
    let mut steps = NormSteps { prefix: format!("{output}.batch"), opset, nodes: Vec::new() };
    let [x, scale, bias, mean, variance] =
        [0, 1, 2, 3, 4].map(|index| norm.input.get(index).map_or("", String::as_str));
    let wide = steps.wide(x);
    // [N, C, the rest], whatever the rest is.
    let shape = steps.integers(&[0, 0, -1]);
    let flat = steps.step("Reshape", &[&wide, &shape]);
    let batch_mean = steps.mean(&flat);
    let centred = steps.step("Sub", &[&flat, &batch_mean]);
    let squares = steps.step("Mul", &[&centred, &centred]);
    let batch_variance = steps.mean(&squares);
    let epsilon = steps.float(number("epsilon", 1e-5).into());
    let sum = steps.step("Add", &[&batch_variance, &epsilon]);
    let deviation = steps.step("Sqrt", &[&sum]);
    let column = steps.integers(&[-1, 1]);
    let [scale, bias] = [scale, bias].map(|vector| {
        let wide = steps.wide(vector);
        steps.step("Reshape", &[&wide, &column])
    });
    // With its axes in reverse, x meets [C, 1] in its channels, whatever its rank.
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

/// Nodes that are appended one by one, each with a name of its own.
struct NormSteps {
    prefix: String,
    opset: i64,
    nodes: Vec<NodeProto>,
}

impl NormSteps {
    fn name(&self) -> String {
        format!("{}.{}", self.prefix, self.nodes.len())
    }

    fn push(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let name = self.name();
        self.nodes.push(write::node(op, "", inputs, &name, attributes));
        name
    }

    fn step(&mut self, op: &str, inputs: &[&str]) -> String {
        self.push(op, inputs, Vec::new())
    }

    /// In float64.
    fn wide(&mut self, input: &str) -> String {
        let to = write::int("to", i64::from(i32::from(DataType::Double)));
        self.push("Cast", &[input], vec![to])
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let stored = tensor::from_integers(&self.name(), values);
        self.push("Constant", &[], vec![write::tensor("value", stored)])
    }

    fn float(&mut self, value: f64) -> String {
        let number = tensor::from_floats("", &ndarray::arr0(value).into_dyn(), Float::F64);
        self.push("Constant", &[], vec![write::tensor("value", number)])
    }

    /// `[C, 1]`, the means of `[N, C, L]`.
    fn mean(&mut self, of: &str) -> String {
        let rows = self.mean_along(of, 2, 1);
        self.mean_along(&rows, 0, 0)
    }

    fn mean_along(&mut self, of: &str, axis: i64, keepdims: i64) -> String {
        let mut attributes = vec![write::int("keepdims", keepdims)];
        // ReduceMean's axes are an input since operator set 18.
        if self.opset < 18 {
            attributes.push(write::ints("axes", vec![axis]));
            return self.push("ReduceMean", &[of], attributes);
        }
        let axes = self.integers(&[axis]);
        self.push("ReduceMean", &[of, &axes], attributes)
    }
}
