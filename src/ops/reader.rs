//! Looks up what the reading of nodes needs: one graph, and what is known of its tensors.
//!
//! Each look-up returns a value, or the reason why the node that asks for it is left alone.
//! Knows no operator: what these mean is decided in the other files of this room, one by one in
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

/// Upper bound on the nodes that are followed back from a kernel to tell why it has no value.
const MAX_WAY: usize = 64;

/// The refusal of a node that names an axis beyond those of any network's tensors.
pub const TOO_MANY_AXES: NotLinear =
    NotLinear::Limit("axes of tensors of more than 16 dimensions are not followed");

/// The refusal of a node that names axes its tensor does not have.
pub const NO_SUCH_AXES: NotLinear =
    NotLinear::Malformed("its tensor has no such axes, or it names one twice");

/// Looks up what the nodes of one graph are read from.
pub struct Reader<'g, 'm> {
    /// The graph.
    pub graph: &'g Graph<'m>,
    /// The constants of the graph.
    pub constants: &'g Constants<'g, 'm>,
    /// The sizes of its tensors.
    pub sizes: Sizes<'g, 'm>,
    /// The forms in which new nodes are written.
    pub forms: NodeForms,
    /// How its nodes in training mode are read.
    pub training: Training<'g>,
}

/// What decides how the nodes in training mode of one graph are read.
#[derive(Debug)]
pub struct Training<'d> {
    /// The mode that the user asked for.
    pub asked: TrainingMode,
    /// The tensors that depend on an input of the model.
    pub dependence: &'d Dependence,
}

impl<'g, 'm> Reader<'g, 'm> {
    /// Returns a reader for `graph`; `inputs` are the shapes that the user gave.
    pub fn new(
        graph: &'g Graph<'m>,
        constants: &'g Constants<'g, 'm>,
        inputs: &'g InputShapes,
        training: Training<'g>,
    ) -> Self {
        let forms = NodeForms::of(graph);
        Reader { graph, constants, sizes: Sizes::new(graph, constants, inputs), forms, training }
    }

    /// Returns the same reader for a body within the graph of `outer`.
    pub fn within(self, outer: &Reader) -> Self {
        Reader { sizes: self.sizes.within(&outer.sizes), ..self }
    }

    /// Whether the output of `node` is constant.
    pub fn computes_constant(&self, node: &Node) -> bool {
        node.output().is_some_and(|output| self.constants.contains(output))
    }

    /// Returns the values of the float constant `id`.
    ///
    /// # Errors
    /// Returns an error if `id` is no float constant, or is malformed.
    pub fn floats(&self, id: ValueId) -> Result<ArrayD<f64>, Stop> {
        match self.constants.floats(id)? {
            Some((values, _)) => Ok(values),
            None => Err(self.not_constant(id).into()),
        }
    }

    /// Returns a float constant vector of `length` elements.
    ///
    /// # Errors
    /// Returns an error if `id` is no such vector, or is malformed.
    pub fn vector(&self, id: ValueId, length: usize) -> Result<Vec<f64>, Stop> {
        let values = self.floats(id)?;
        if values.shape() != [length] {
            return Err(self.wrong_length(id, length).into());
        }
        Ok(values.into_raw_vec_and_offset().0)
    }

    /// Returns the refusal that says that `id` is no vector of `length` floats.
    pub fn wrong_length(&self, id: ValueId, length: usize) -> NotLinear {
        NotLinear::WrongLength { constant: self.graph.value(id).name.to_owned(), length }
    }

    /// Returns the dimensions of the constant `id`.
    ///
    /// # Errors
    /// Returns an error if `id` is no constant, or is malformed.
    pub fn dims(&self, id: ValueId) -> Result<Vec<usize>, Stop> {
        self.constants.dims(id)?.ok_or_else(|| self.not_constant(id).into())
    }

    /// Returns the integers `id` if they are known; if they follow from sizes, the reading
    /// depends on them.
    ///
    /// # Errors
    /// Returns an error if a stored tensor is malformed.
    pub fn integers(&self, id: ValueId, valid: &mut Validity) -> Result<Option<Vec<i64>>, Invalid> {
        let integers = self.sizes.integers(id)?;
        if let Some(values) = integers.as_ref().filter(|_| !self.constants.contains(id)) {
            valid.require(id, Property::Integers(values.clone()));
        }
        Ok(integers)
    }

    /// Returns the integers `id`, which must be known.
    ///
    /// # Errors
    /// Returns an error if they are not known, or are malformed.
    pub fn known_integers(&self, id: ValueId, valid: &mut Validity) -> Result<Vec<i64>, Stop> {
        self.integers(id, valid)?.ok_or_else(|| self.not_constant(id).into())
    }

    /// Returns a list that is an attribute in old operator sets and an input in new ones, or
    /// `None` if it is left out.
    ///
    /// # Errors
    /// Returns an error if it is not known, or is malformed.
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

    /// Returns the rank of `tensor`, on which the reading depends.
    ///
    /// # Errors
    /// Returns an error if it is not known.
    pub fn rank(&self, tensor: ValueId, valid: &mut Validity) -> Result<usize, NotLinear> {
        let rank = self.sizes.rank(tensor)?;
        valid.require(tensor, Property::Rank(rank));
        Ok(rank)
    }

    /// Returns `axes` counted from the front; if the rank of `tensor` is unknown, they must be
    /// already.
    ///
    /// # Errors
    /// Returns an error if the tensor has no such axis, or one is named twice; if the rank is
    /// needed and not known; or if it would be beyond that of any network's tensors.
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

    /// Checks that the inputs of `node` with these numbers have one type, as its operator
    /// demands: no engine runs a float16 kernel on a float32 tensor, and such a node computes no
    /// function. A type that is not known is taken for that of the others, since the node would
    /// be invalid otherwise.
    ///
    /// # Errors
    /// Returns an error if the types differ.
    pub fn same_types(&self, node: &Node, inputs: &[usize]) -> Result<(), NotLinear> {
        let of_input = |&index: &usize| self.constants.element_type(node.input(index)?);
        let mut known = inputs.iter().filter_map(of_input);
        if known.next().is_some_and(|first| known.any(|other| other != first)) {
            return Err(NotLinear::Malformed("its inputs have different types"));
        }
        Ok(())
    }

    /// Returns the reason why the tensor `id` has no value here.
    pub fn not_constant(&self, id: ValueId) -> NotLinear {
        let value = self.graph.value(id);
        // A tensor that cannot be decoded is reported elsewhere.
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

    /// Returns the node because of which `id` has no value although it depends on no input of
    /// the model: the node dequantizes, or is not evaluated.
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

/// Returns the first input of `node`.
///
/// # Errors
/// Returns an error if it is left out.
pub fn first_input(node: &Node) -> Result<ValueId, NotLinear> {
    node.input(0).ok_or(NotLinear::Malformed("its input is missing"))
}

/// Returns the refusal that says that the operator of `node` is not linear as it stands.
pub fn not_linear(node: &Node) -> NotLinear {
    NotLinear::Operator(node.proto.op_type().to_owned())
}
