//! Tries out nodes that move elements and compute none: the engine runs them on an input whose
//! elements all differ, and where each element is found again tells what the nodes do. Nodes
//! that compute are not among them: a ScatterND that takes the larger of two would move only
//! what is above zero.
//!
//! Which nodes these are, and at which shapes they are tried, is decided in
//! [`filled`](crate::ops::filled).
//!
//! Knows no weights: the input holds numbers that tell the elements apart.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::{ArrayD, Dimension, IxDyn, indices};
use prost::Message;

use crate::affine::{PadMode, Window};
use crate::engine::{Array, Engine, EngineError, Limits, Source, dialect};
use crate::onnx::float::Float;
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::storage::Storage;
use crate::onnx::tensor;
use crate::onnx::write;
use crate::ops::reader::Reader;
use crate::ops::stop::Stop;
use crate::refusal::NotLinear;

/// Upper bound on the nodes that are tried; slice assignments are exported as some hundred.
pub const MAX_NODES: usize = 4096;

/// The refusal of more nodes.
pub const TOO_MANY_NODES: NotLinear =
    NotLinear::Limit("more than 4096 nodes that move elements lead to it, and no more are tried");

const TOO_MANY_ELEMENTS: NotLinear = NotLinear::Limit(
    "where it puts its elements is not tried: that takes more of them than are moved for one \
     border, or for all borders of a model together",
);

/// The value of the first element of the input: no border of a real network holds one like it.
const FIRST: f64 = (1_u64 << 40) as f64;

/// Cost of finding the elements again, in moves of each: it takes as long as moving them this
/// often.
const MOVES_TO_FIND: usize = 6;

/// The nodes between two tensors, the constants that they read, and other tensors of which they
/// read only the shape.
pub struct FillSteps {
    opset: i64,
    input: String,
    output: String,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    shapes: Vec<(String, Vec<MeasuredSize>)>,
}

/// A size of a tensor of which only the shape is read.
#[derive(Debug, Clone, Copy)]
enum MeasuredSize {
    /// This number.
    Number(usize),
    /// The size of this axis of the padded tensor.
    OfAxis(usize),
}

impl MeasuredSize {
    /// Returns the size if the padded tensor has this shape.
    fn at(self, shape: &[usize]) -> Option<usize> {
        match self {
            MeasuredSize::Number(size) => Some(size),
            MeasuredSize::OfAxis(axis) => shape.get(axis).copied(),
        }
    }
}

impl FillSteps {
    /// Collects the nodes that compute `output` from `input`.
    ///
    /// # Errors
    /// Returns an error if there are too many nodes, or they read what is not constant.
    pub fn between(reader: &Reader, input: ValueId, output: ValueId) -> Result<Self, Stop> {
        let graph = reader.graph;
        let name = |id: ValueId| graph.value(id).name.to_owned();
        let (mut nodes, mut seen) = (BTreeSet::new(), BTreeSet::from([input]));
        let (mut constants, mut measured) = (Vec::new(), BTreeMap::new());
        let mut wanted = vec![output];
        while let Some(value) = wanted.pop() {
            if !seen.insert(value) {
                continue;
            }
            if let Some((floats, _)) = reader.constants.floats(value)? {
                constants.push(tensor::from_floats(&name(value), &floats, Float::F64));
            } else if let Some(constant) = reader.constants.tensor(value)? {
                let constant = tensor::inlined(&constant, &graph.model.storage);
                let constant = constant.map_err(Invalid::from)?;
                constants.push(TensorProto { name: Some(name(value)), ..constant });
            } else if let Some(producer) = graph.value(value).producer {
                nodes.insert(producer);
                let is_shape = graph.node(producer).standard_op() == Some("Shape");
                for read in graph.uses(producer) {
                    match measured_sizes(reader, read, input).filter(|_| is_shape) {
                        Some(sizes) => drop(measured.insert(read, sizes)),
                        None => wanted.push(read),
                    }
                }
            } else {
                let why = "where it puts its elements is not constant";
                return Err(NotLinear::Unrepresentable(why).into());
            }
            if nodes.len() > MAX_NODES {
                return Err(TOO_MANY_NODES.into());
            }
        }
        let shapes = measured.into_iter().filter(|(id, _)| !seen.contains(id));
        let shapes = shapes.map(|(id, sizes)| (name(id), sizes)).collect();
        let nodes = nodes.into_iter().map(|id| graph.node(id).proto.clone()).collect();
        let opset = graph.model.opset;
        let (input, output) = (name(input), name(output));
        Ok(FillSteps { opset, input, output, nodes, constants, shapes })
    }

    /// Returns the border that the nodes fill at each of `shapes`: its windows, and its values
    /// per channel.
    ///
    /// # Errors
    /// Returns an error if they fill none, or not the same one at all shapes, or if trying that
    /// takes too long.
    pub fn border_at(
        &self,
        reader: &Reader,
        shapes: &[Vec<usize>],
    ) -> Result<(Vec<Window>, Vec<f64>), NotLinear> {
        let mut borders = Vec::with_capacity(shapes.len());
        for shape in shapes {
            if !reader.constants.budget().spend_moves(self.moves(shape)) {
                return Err(TOO_MANY_ELEMENTS);
            }
            let moved = self.run(shape).map_err(|error| {
                let border = || format!("the border that ends in `{}`", self.output);
                reader.constants.budget().note(&error, border);
                NotLinear::Unrepresentable("where it puts its elements cannot be tried")
            })?;
            let uneven = "it does not fill a border evenly";
            borders.push(moved.border().ok_or(NotLinear::Unrepresentable(uneven))?);
        }
        let why = "it does not fill the same border at all sizes";
        let uneven = NotLinear::Unrepresentable(why);
        let last = borders.pop().ok_or_else(|| uneven.clone())?;
        if borders.iter().all(|border| *border == last) { Ok(last) } else { Err(uneven) }
    }

    /// Estimates how many elements are moved when the nodes are tried on this shape: all
    /// elements for each node that moves them.
    fn moves(&self, shape: &[usize]) -> usize {
        let elements = shape.iter().fold(1usize, |all, &size| all.saturating_mul(size));
        let moves = |node: &&NodeProto| matches!(node.op_type(), "ScatterND" | "Transpose" | "Pad");
        let times = self.nodes.iter().filter(moves).count().saturating_add(MOVES_TO_FIND);
        let measured = self.shapes.iter().map(|(_, measured)| {
            let sizes = measured.iter().map(|size| size.at(shape).unwrap_or(1));
            sizes.fold(1usize, usize::saturating_mul)
        });
        measured.fold(elements.saturating_mul(times), usize::saturating_add)
    }

    /// Runs the nodes on numbered elements.
    ///
    /// # Errors
    /// Returns an error if they do not run on this shape.
    fn run(&self, shape: &[usize]) -> Result<Moved, EngineError> {
        let beyond = || EngineError::Failed("its sizes are beyond all reason".to_owned());
        let elements = shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
        let elements = elements.ok_or_else(beyond)?;
        let constant = |name: &str| self.constants.iter().find(|tensor| tensor.name() == name);
        let integers = |name: &str| tensor::integers(constant(name)?, &Storage::default()).ok();
        let nodes = self.nodes.iter().cloned();
        let nodes = nodes.flat_map(|node| dialect::node(node, self.opset, &integers)).collect();
        let inputs = vec![write::double_input(&self.input, shape.len())];
        let mut constants = self.constants.clone();
        for (name, measured) in &self.shapes {
            let sizes = measured.iter().map(|size| size.at(shape));
            let sizes = sizes.collect::<Option<Vec<usize>>>().ok_or_else(beyond)?;
            let zeros = ArrayD::zeros(IxDyn(&sizes));
            constants.push(tensor::from_floats(name, &zeros, Float::F64));
        }
        let model = write::model(self.opset, inputs, nodes, constants, &[&self.output]);
        let source = Source::small(model.encode_to_vec(), Limits::of_reading());
        let engine = Engine::load(source, &[shape.to_vec()])?;
        let numbers = (0..elements).map(|number| FIRST + number as f64).collect();
        let numbers = ArrayD::from_shape_vec(IxDyn(shape), numbers).map_err(|_| beyond())?;
        match engine.run(&[Array::Float(numbers)])?.into_iter().next() {
            Some(Array::Float(made)) => Ok(Moved { shape: shape.to_vec(), made }),
            _ => Err(EngineError::Failed("it makes no floats".to_owned())),
        }
    }
}

/// Returns the sizes of `tensor` in terms of those of `padded`, or `None` if one is not known.
fn measured_sizes(reader: &Reader, tensor: ValueId, padded: ValueId) -> Option<Vec<MeasuredSize>> {
    let shape = reader.sizes.shape(tensor);
    let same = reader.sizes.axes_of_same_size(tensor, padded);
    let size = |(axis, size): (usize, &Option<i64>)| match *size {
        Some(size) => usize::try_from(size).ok().map(MeasuredSize::Number),
        None => same.get(axis).copied().flatten().map(MeasuredSize::OfAxis),
    };
    let sizes = shape.iter().enumerate().map(size).collect::<Option<Vec<_>>>();
    sizes.filter(|sizes| sizes.len() > 1)
}

/// An input's shape, and the output in which its numbered elements are found again.
struct Moved {
    shape: Vec<usize>,
    made: ArrayD<f64>,
}

impl Moved {
    /// Returns the border that was put around the input, and its values per channel, or `None`
    /// if something else happened.
    fn border(&self) -> Option<(Vec<Window>, Vec<f64>)> {
        let (first, _) = self.made.indexed_iter().find(|&(_, &value)| value == FIRST)?;
        let before: Vec<usize> = first.as_array_view().to_vec();
        if before.len() != self.shape.len() {
            return None;
        }
        let mut values = vec![None; *self.shape.get(1)?];
        let (outer, width) = (self.made.shape().split_last()?.1, *self.shape.last()?);
        let left = *before.last()?;
        for (at, row) in indices(outer).into_iter().zip(self.made.rows()) {
            let at = at.as_array_view();
            let at = at.as_slice()?;
            let first = self.first_of_row(at, &before);
            let value = values.get_mut(*at.get(1)?)?;
            for (column, &made) in row.iter().enumerate() {
                let inside = column.checked_sub(left).filter(|&inside| inside < width);
                let number = first.zip(inside).map(|(first, inside)| first.saturating_add(inside));
                let expected = match number {
                    Some(number) => FIRST + number as f64,
                    None => *value.get_or_insert(made),
                };
                if made != expected || made.is_infinite() {
                    return None;
                }
            }
        }
        let sides = before.iter().zip(self.shape.iter().zip(self.made.shape()));
        let mut sides = sides.map(|(&before, (&size, &all))| {
            Some((
                i64::try_from(before).ok()?,
                i64::try_from(all.checked_sub(before.checked_add(size)?)?).ok()?,
            ))
        });
        // The batch and the channels have no border.
        if sides.next()?? != (0, 0) || sides.next()?? != (0, 0) {
            return None;
        }
        let windows =
            sides.map(|pads| Window::frame(pads?, PadMode::Zero)).collect::<Option<_>>()?;
        Some((windows, values.into_iter().collect::<Option<_>>()?))
    }

    /// Returns the number of the first input element in the row `at` of the output, or `None` if
    /// the row is in the border.
    fn first_of_row(&self, at: &[usize], before: &[usize]) -> Option<usize> {
        let (&width, outer) = self.shape.split_last()?;
        let mut row = 0usize;
        for (&size, (&at, &before)) in outer.iter().zip(at.iter().zip(before)) {
            let inside = at.checked_sub(before).filter(|&inside| inside < size)?;
            row = row.checked_mul(size)?.checked_add(inside)?;
        }
        row.checked_mul(width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The border found for a `[1, 1, 2, 3]` input with elements 1 to 6 if the `[1, 1, 4, 3]`
    /// output holds `rows`, where `0` stands for `border`.
    fn moved(rows: [[f64; 3]; 4], border: f64) -> Option<(Vec<Window>, Vec<f64>)> {
        let made = ArrayD::from_shape_fn(IxDyn(&[1, 1, 4, 3]), |at| match rows[at[2]][at[3]] {
            0.0 => border,
            number => FIRST + number - 1.0,
        });
        let moved = Moved { shape: vec![1, 1, 2, 3], made };
        moved.border()
    }

    #[test]
    fn a_border_is_told_from_where_elements_are_found() {
        let (first, second, zero) = ([1., 2., 3.], [4., 5., 6.], [0.; 3]);
        for (case, rows, expected) in [
            ("around", [zero, first, second, zero], Some((1, 1))),
            ("before", [zero, zero, first, second], Some((2, 0))),
            ("behind", [first, second, zero, zero], Some((0, 2))),
            ("rows exchanged", [zero, second, first, zero], None),
            ("repeated", [first, first, second, zero], None),
            ("one element overwritten", [zero, [1., 0., 3.], second, zero], None),
            ("one element in the border", [[2., 0., 0.], first, second, zero], None),
            ("nothing left", [zero; 4], None),
        ] {
            let frame = |pads| Window::frame(pads, PadMode::Zero).unwrap();
            let expected = expected.map(|rows| (vec![frame(rows), frame((0, 0))], vec![0.5]));
            assert_eq!(moved(rows, 0.5), expected, "{case}");
        }
        assert_eq!(moved([zero, first, second, zero], f64::NAN), None);
    }
}
