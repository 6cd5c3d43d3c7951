//! What the readings of nodes look up: one graph, and what is known of its tensors.
//!
//! Each look-up returns a value, or why the node that asks for it is left alone. It knows no
//! operator: what these mean is told by the files beside it, one by one in
//! [`table`](crate::ops::table).

use ndarray::ArrayD;

use crate::engine::InputShapes;
use crate::facts::constants::Constants;
use crate::facts::dependence::Dependence;
use crate::facts::roles;
use crate::facts::shape_rules::MAX_RANK;
use crate::facts::shapes::Sizes;
use crate::facts::validity::{Property, Validity};
use crate::onnx::graph::Graph;
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::node::{Node, distinct_axes};
use crate::ops::forms::NodeForms;
use crate::ops::stop::Stop;
use crate::options::TrainingMode;
use crate::refusal::NotLinear;

/// So many nodes are followed back from a kernel to tell why it has no value.
const MAX_WAY: usize = 64;

/// What is said of a node that names an axis beyond those of any network's tensors.
pub const TOO_MANY_AXES: NotLinear =
    NotLinear::Limit("axes of tensors of more than 16 dimensions are not followed");

/// What is said of a node whose axes its tensor does not have.
pub const NO_SUCH_AXES: NotLinear =
    NotLinear::Malformed("its tensor has no such axes, or it names one twice");

/// Looks up what nodes of one graph are read from.
pub struct Reader<'g, 'm> {
    /// The graph.
    pub graph: &'g Graph<'m>,
    /// What is constant in it.
    pub constants: &'g Constants<'g, 'm>,
    /// The sizes of its tensors.
    pub sizes: Sizes<'g, 'm>,
    /// The forms that new nodes have in it.
    pub forms: NodeForms,
    /// What its nodes in training mode are read as.
    pub training: Training<'g>,
}

/// What decides about the nodes in training mode of one graph.
#[derive(Debug)]
pub struct Training<'d> {
    /// What was asked for.
    pub asked: TrainingMode,
    /// What depends on an input.
    pub dependence: &'d Dependence,
}

impl<'g, 'm> Reader<'g, 'm> {
    /// `inputs` are the shapes that the user gave.
    pub fn new(
        graph: &'g Graph<'m>,
        constants: &'g Constants<'g, 'm>,
        inputs: &'g InputShapes,
        training: Training<'g>,
    ) -> Self {
        let forms = NodeForms::of(graph);
        Reader { graph, constants, sizes: Sizes::new(graph, constants, inputs), forms, training }
    }

    /// The same of a body in the graph of `outer`.
    pub fn within(self, outer: &Reader) -> Self {
        Reader { sizes: self.sizes.within(&outer.sizes), ..self }
    }

    /// Whether all that `node` makes is constant.
    pub fn computes_constant(&self, node: &Node) -> bool {
        node.output().is_some_and(|output| self.constants.contains(output))
    }

    /// The values of the float constant `id`.
    ///
    /// # Errors
    /// If it is none, or is malformed.
    pub fn floats(&self, id: ValueId) -> Result<ArrayD<f64>, Stop> {
        match self.constants.floats(id)? {
            Some((values, _)) => Ok(values),
            None => Err(self.not_constant(id).into()),
        }
    }

    /// A float constant vector of `length` elements.
    ///
    /// # Errors
    /// If `id` is none, or is malformed.
    pub fn vector(&self, id: ValueId, length: usize) -> Result<Vec<f64>, Stop> {
        let values = self.floats(id)?;
        if values.shape() != [length] {
            return Err(self.wrong_length(id, length).into());
        }
        Ok(values.into_raw_vec_and_offset().0)
    }

    /// That `id` is no vector of `length` floats.
    pub fn wrong_length(&self, id: ValueId, length: usize) -> NotLinear {
        NotLinear::WrongLength { constant: self.graph.value(id).name.to_owned(), length }
    }

    /// The dimensions of the constant `id`.
    ///
    /// # Errors
    /// If it is none, or is malformed.
    pub fn dims(&self, id: ValueId) -> Result<Vec<usize>, Stop> {
        self.constants.dims(id)?.ok_or_else(|| self.not_constant(id).into())
    }

    /// The integers `id`, if they are known; on those that follow from sizes the reading
    /// depends.
    ///
    /// # Errors
    /// If a stored tensor is malformed.
    pub fn integers(&self, id: ValueId, valid: &mut Validity) -> Result<Option<Vec<i64>>, Invalid> {
        let integers = self.sizes.integers(id)?;
        if let Some(values) = integers.as_ref().filter(|_| !self.constants.contains(id)) {
            valid.require(id, Property::Integers(values.clone()));
        }
        Ok(integers)
    }

    /// The integers `id`, which must be known.
    ///
    /// # Errors
    /// If they are not, or are malformed.
    pub fn known_integers(&self, id: ValueId, valid: &mut Validity) -> Result<Vec<i64>, Stop> {
        self.integers(id, valid)?.ok_or_else(|| self.not_constant(id).into())
    }

    /// A list that old operator sets have as an attribute and new ones as an input; `None` if
    /// it is left out.
    ///
    /// # Errors
    /// If it is not known, or is malformed.
    pub fn list(
        &self,
        node: &Node,
        name: &str,
        input: usize,
        valid: &mut Validity,
    ) -> Result<Option<Vec<i64>>, Stop> {
        match (node.ints(name), node.input(input)) {
            (Some(list), _) => Ok(Some(list.to_vec())),
            (None, None) => Ok(None),
            (None, Some(list)) => Ok(Some(self.known_integers(list, valid)?)),
        }
    }

    /// The number of dimensions of `tensor`, on which the reading depends.
    ///
    /// # Errors
    /// If it is not known.
    pub fn rank(&self, tensor: ValueId, valid: &mut Validity) -> Result<usize, NotLinear> {
        let rank = self.sizes.rank(tensor)?;
        valid.require(tensor, Property::Rank(rank));
        Ok(rank)
    }

    /// Axes counted from the front; those of a tensor of unknown rank must be already.
    ///
    /// # Errors
    /// If it has no such axis, or one is named twice; if the rank is needed and not known, or
    /// would be beyond that of any network's tensors.
    pub fn axes_from_front(
        &self,
        tensor: ValueId,
        axes: &[i64],
        valid: &mut Validity,
    ) -> Result<Vec<usize>, NotLinear> {
        let rank = if axes.iter().any(|&axis| axis < 0) {
            self.rank(tensor, valid)?
        } else {
            let rank = self.sizes.known_rank(tensor);
            if rank.is_none() && axes.iter().any(|&axis| axis >= MAX_RANK as i64) {
                return Err(TOO_MANY_AXES);
            }
            rank.unwrap_or(MAX_RANK)
        };
        distinct_axes(axes, rank).ok_or(NO_SUCH_AXES)
    }

    /// That the inputs of `node` with these numbers are of one type, as its operator asks for:
    /// no engine runs a float16 kernel on a float32 tensor, and there is no function that such
    /// a node is. A type that is not known is that of the others, or the node would be none.
    ///
    /// # Errors
    /// If they are not.
    pub fn same_types(&self, node: &Node, inputs: &[usize]) -> Result<(), NotLinear> {
        let of_input = |&index: &usize| self.constants.element_type(node.input(index)?);
        let mut known = inputs.iter().filter_map(of_input);
        if known.next().is_some_and(|first| known.any(|other| other != first)) {
            return Err(NotLinear::Malformed("its inputs have different types"));
        }
        Ok(())
    }

    /// Why the tensor `id` has no value here.
    pub fn not_constant(&self, id: ValueId) -> NotLinear {
        let value = self.graph.value(id);
        // A tensor that cannot be decoded is told of elsewhere.
        let limit = self.constants.limit(id).unwrap_or_default();
        let tensor = value.name.to_owned();
        match limit {
            Some(limit) => NotLinear::Beyond { tensor, limit },
            None if value.initializer.is_some() && value.input.is_some() => {
                NotLinear::Overridable(tensor)
            }
            None => match self.obstacle(id) {
                Some(node) if roles::dequantizes(node) => NotLinear::Quantized(tensor),
                Some(node) => {
                    let operator = node.proto.op_type().to_owned();
                    NotLinear::NotEvaluated { tensor, operator }
                }
                None => NotLinear::NotConstant(tensor),
            },
        }
    }

    /// The node that keeps `id` from having a value, although nothing that the model is given
    /// is read: it makes floats of what was quantized, or is not evaluated.
    fn obstacle(&self, id: ValueId) -> Option<&'g Node> {
        let has_no_value = |&id: &ValueId| self.constants.tensor(id).is_ok_and(|t| t.is_none());
        let mut at = id;
        for _ in 0..MAX_WAY {
            let node = self.graph.node(self.graph.value(at).producer?);
            if roles::dequantizes(node) {
                return Some(node);
            }
            let Some(next) = roles::values_read(node).find(has_no_value) else {
                let is_given = roles::is_random(node) || !node.captured.is_empty();
                return Some(node).filter(|_| !is_given);
            };
            at = next;
        }
        None
    }
}

/// The first input of `node`.
///
/// # Errors
/// If it is left out.
pub fn first_input(node: &Node) -> Result<ValueId, NotLinear> {
    node.input(0).ok_or(NotLinear::Malformed("its input is missing"))
}

/// That the operator of `node` is not linear, as it stands.
pub fn not_linear(node: &Node) -> NotLinear {
    NotLinear::Operator(node.proto.op_type().to_owned())
}
