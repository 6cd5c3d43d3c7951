//! Resize in float64, which tract has in float32 alone.
//!
//! Along each axis, element `j` of the result corresponds to a position `p(j)` in the operand.
//! The element is either the nearest one to that position or
//! `x[⌊p⌋] + (p − ⌊p⌋)·(x[⌊p⌋ + 1] − x[⌊p⌋])`, where indices beyond the ends are clamped to the
//! first and last element (ONNX, Resize-19).
//!
//! Knows the node and its factors; sizes are computed by nodes.

use crate::engine::dialect::steps::Steps;
use crate::onnx::proto::NodeProto;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::write;

/// The new size of an axis: a factor of its old size, or a number of elements.
#[derive(Debug, Clone, Copy)]
enum NewSize {
    Times(f64),
    Exactly(f64),
}

/// Rewrites a Resize or Upsample of a float64 tensor as its steps if its factors or sizes,
/// looked up in `numbers`, are known and its mode is nearest or linear. Every other one is
/// returned as it is.
pub fn resized(node: NodeProto, numbers: &dyn Fn(&str) -> Option<Vec<f64>>) -> Vec<NodeProto> {
    let text = |name: &str, default: &'static [u8]| {
        let attribute = node.attribute.iter().find(|attribute| attribute.name() == name);
        attribute.map_or(default, |attribute| attribute.s()).to_vec()
    };
    // Before operator set 11, the operator has neither of these attributes.
    let (place, rounding): (&[u8], &[u8]) = match node.input.len() {
        ..3 => (b"asymmetric", b"floor"),
        _ => (b"half_pixel", b"round_prefer_floor"),
    };
    let [mode, place, rounding] =
        [text("mode", b"nearest"), text(PLACE, place), text("nearest_mode", rounding)];
    let is_filtered = node.attribute.iter().any(|a| a.name() == "antialias" && a.i() != 0);
    let is_stretched = text("keep_aspect_ratio_policy", b"stretch") == b"stretch";
    let sizes = sizes(&node, numbers).filter(|_| is_stretched && !is_filtered);
    let Some(sizes) = sizes else { return vec![node] };
    let output = node.output.first().map_or("", String::as_str);
    let mut steps = Steps::called(format!("{output}.resized"));
    let mut value = node.input.first().cloned().unwrap_or_default();
    for (axis, new) in sizes {
        // `behind` counts axes from the end, whatever the rank.
        let is_turned = axis >= 0;
        let behind = if is_turned { axis } else { axis.saturating_add(1).saturating_neg() };
        if is_turned {
            value = steps.step("Transpose", &[&value]);
        }
        let axis = ResizedAxis { of: &value, behind, new };
        let Some(made) = axis.resized(&mut steps, [&mode, &place, &rounding]) else {
            return vec![node];
        };
        value = if is_turned { steps.step("Transpose", &[&made]) } else { made };
    }
    let last = write::node("Identity", "", &[&value], output, vec![]);
    steps.nodes.push(last);
    steps.nodes
}

/// Upper bound on the number of an axis; no tensor of a network has more axes.
const MAX_RANK: u64 = 16;

const PLACE: &str = "coordinate_transformation_mode";

/// Returns the axes that the node resizes with their new sizes, or `None` if these are not
/// known.
fn sizes(
    node: &NodeProto,
    numbers: &dyn Fn(&str) -> Option<Vec<f64>>,
) -> Option<Vec<(i64, NewSize)>> {
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name() == name);
    // Since operator set 11, the input `roi` precedes the factors.
    let [factors, sizes] = if node.input.len() > 2 { [2, 3] } else { [1, 3] };
    let listed = |index: usize| {
        let list = node.input.get(index).and_then(|name| numbers(name));
        list.filter(|list| !list.is_empty())
    };
    let scales = attribute("scales").map(|a| a.floats.iter().map(|&s| f64::from(s)).collect());
    let by = |list: Vec<f64>| list.into_iter().map(NewSize::Times).collect::<Vec<_>>();
    let to = |list: Vec<f64>| list.into_iter().map(NewSize::Exactly).collect::<Vec<_>>();
    let sizes = scales.or_else(|| listed(factors)).map(by).or_else(|| listed(sizes).map(to))?;
    let axes = attribute("axes").map(|axes| axes.ints.clone());
    let axes = axes.unwrap_or_else(|| (0..sizes.len() as i64).collect());
    let are_known = axes.iter().all(|axis| axis.unsigned_abs() <= MAX_RANK);
    (are_known && axes.len() == sizes.len()).then(|| axes.into_iter().zip(sizes).collect())
}

/// An axis of the tensor `of`, with `behind` axes after it.
struct ResizedAxis<'a> {
    of: &'a str,
    behind: i64,
    new: NewSize,
}

impl ResizedAxis<'_> {
    /// Appends the steps that resize the axis, for a mode, a coordinate transformation and a
    /// rounding; returns the name of the result, or `None` if one of the three is not known.
    fn resized(&self, steps: &mut Steps, [mode, place, rounding]: [&[u8]; 3]) -> Option<String> {
        let (zero, one) = (steps.float(0.0), steps.float(1.0));
        let place = self.places(steps, place, &one)?;
        let last = {
            let size = self.size(steps);
            steps.step("Sub", &[&size, &one])
        };
        let element = |steps: &mut Steps, at: &str| {
            let at = steps.step("Max", &[at, &zero]);
            let at = steps.step("Min", &[&at, &last]);
            let at = steps.cast(&at, DataType::Int64);
            let axis = write::int("axis", self.behind.saturating_add(1).saturating_neg());
            steps.push("Gather", &[self.of, &at], vec![axis])
        };
        if mode == b"nearest" {
            let half = steps.float(0.5);
            let (op, place) = match rounding {
                b"round_prefer_floor" => ("Ceil", steps.step("Sub", &[&place, &half])),
                b"round_prefer_ceil" => ("Floor", steps.step("Add", &[&place, &half])),
                b"floor" => ("Floor", place),
                b"ceil" => ("Ceil", place),
                _ => return None,
            };
            let nearest = steps.step(op, &[&place]);
            return Some(element(steps, &nearest));
        }
        if mode != b"linear" {
            return None;
        }
        let below = steps.step("Floor", &[&place]);
        let above = steps.step("Add", &[&below, &one]);
        let share = steps.step("Sub", &[&place, &below]);
        let along: Vec<i64> = [-1].into_iter().chain((0..self.behind).map(|_| 1)).collect();
        let along = steps.integers(&along);
        let share = steps.step("Reshape", &[&share, &along]);
        let [below, above] = [below, above].map(|at| element(steps, &at));
        let rise = steps.step("Sub", &[&above, &below]);
        let rise = steps.step("Mul", &[&rise, &share]);
        Some(steps.step("Add", &[&below, &rise]))
    }

    /// Appends the steps that compute the old size of the axis as a float64 number.
    fn size(&self, steps: &mut Steps) -> String {
        let shape = steps.step("Shape", &[self.of]);
        let at = steps.integer(self.behind.saturating_add(1).saturating_neg());
        let size = steps.step("Gather", &[&shape, &at]);
        steps.wide(&size)
    }

    /// Appends the steps that compute the position of each new element on the old axis.
    fn places(&self, steps: &mut Steps, mode: &[u8], one: &str) -> Option<String> {
        let size = self.size(steps);
        let (made, factor) = match self.new {
            NewSize::Times(factor) => {
                let factor = steps.float(factor);
                let made = steps.step("Mul", &[&size, &factor]);
                // 10·0.7 is 7 in float32, but slightly less in float64.
                let rounded = steps.cast(&made, DataType::Float);
                let made = steps.wide(&rounded);
                (steps.step("Floor", &[&made]), factor)
            }
            NewSize::Exactly(made) => {
                let made = steps.float(made);
                let factor = steps.step("Div", &[&made, &size]);
                (made, factor)
            }
        };
        let (first, step) = (steps.integer(0), steps.integer(1));
        let count = steps.cast(&made, DataType::Int64);
        let numbers = steps.step("Range", &[&first, &count, &step]);
        let number = steps.wide(&numbers);
        let spaces = steps.step("Sub", &[&made, one]);
        match mode {
            b"asymmetric" => Some(steps.step("Div", &[&number, &factor])),
            b"align_corners" => {
                let last = steps.step("Sub", &[&size, one]);
                let spaces = steps.step("Max", &[&spaces, one]);
                let place = steps.step("Mul", &[&number, &last]);
                Some(steps.step("Div", &[&place, &spaces]))
            }
            b"half_pixel" | b"pytorch_half_pixel" => {
                let half = steps.float(0.5);
                let centre = steps.step("Add", &[&number, &half]);
                let centre = steps.step("Div", &[&centre, &factor]);
                let place = steps.step("Sub", &[&centre, &half]);
                if mode != b"pytorch_half_pixel" {
                    return Some(place);
                }
                let is_several = steps.step("Min", &[&spaces, one]);
                Some(steps.step("Mul", &[&place, &is_several]))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn};
    use prost::Message;

    use super::*;
    use crate::engine::source::Source;
    use crate::engine::{Array, Engine, Limits};
    use crate::onnx::float::Float;
    use crate::onnx::proto::TensorProto;
    use crate::onnx::tensor;

    const SHAPE: [usize; 4] = [1, 2, 5, 6];

    fn made(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> ArrayD<f64> {
        let inputs = vec![write::double_input("x", SHAPE.len())];
        let model = write::model(13, inputs, nodes, constants, &["y"]);
        let source = Source::small(model.encode_to_vec(), Limits::of_reading());
        let engine = Engine::load(source, &[SHAPE.to_vec()]).unwrap();
        let x = ArrayD::from_shape_fn(IxDyn(&SHAPE), |at| {
            ((at[1] * 7 + at[2] * 5 + at[3] * 3) % 11) as f64
        });
        match engine.run(&[Array::Float(x)]).unwrap().remove(0) {
            Array::Float(made) => made,
            Array::Int(_) => panic!("integers"),
        }
    }

    /// In float64, the steps compute what tract's own Resize does in float32.
    #[test]
    fn steps_make_what_the_engine_makes() {
        let modes = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
            .map(|rounding| ("nearest", rounding))
            .into_iter()
            .chain([("linear", "floor")]);
        let places = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"];
        let factors: [&[f64]; 3] = [&[1., 1., 2., 3.], &[1., 1., 0.4, 1.5], &[1., 2., 1., 0.5]];
        let sizes: [&[f64]; 2] = [&[1., 2., 9., 4.], &[1., 2., 1., 7.]];
        for ((mode, rounding), place) in modes.flat_map(|mode| places.map(|place| (mode, place))) {
            let attributes = vec![
                write::string("mode", mode),
                write::string(PLACE, place),
                write::string("nearest_mode", rounding),
            ];
            let told = factors.map(|factors| ("factors", factors)).into_iter();
            for (name, list) in told.chain(sizes.map(|sizes| ("sizes", sizes))) {
                let inputs: &[&str] = match name {
                    "factors" => &["x", "", "factors"],
                    _ => &["x", "", "", "sizes"],
                };
                let resize = write::node("Resize", "", inputs, "y", attributes.clone());
                let steps = resized(resize.clone(), &|known| (known == name).then(|| list.into()));
                assert!(steps.len() > 1, "{mode} {place}");
                let narrow = write::into_cast(write::node("", "", &["x"], "narrow", vec![]), 1);
                let mut resize = NodeProto { output: vec!["resized".into()], ..resize };
                resize.input[0] = "narrow".into();
                let wide = write::into_cast(write::node("", "", &["resized"], "y", vec![]), 11);
                let told = ndarray::Array1::from(list.to_vec()).into_dyn();
                let constant = match name {
                    "factors" => tensor::from_floats(name, &told, Float::F32),
                    _ => tensor::from_integers(
                        name,
                        &list.iter().map(|&n| n as i64).collect::<Vec<_>>(),
                    ),
                };
                let expected = made(vec![narrow, resize, wide], vec![constant]);
                let found = made(steps, vec![]);
                assert_eq!(found.shape(), expected.shape(), "{mode} {place} {list:?}");
                let largest = (&found - &expected).iter().fold(0.0, |all: f64, d| all.max(d.abs()));
                assert!(largest < 1e-5, "{mode} {place} {rounding} {list:?}: {found} {expected}");
            }
        }
    }
}
