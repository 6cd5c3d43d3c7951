//! Evaluates one node whose operands are constant, by the engine, in the type that it has: 150 +
//! 150 is 44 in uint8.
//!
//! If the engine does not compute what ONNX says ([`evaluate`](crate::facts::evaluate)), or that
//! takes too much, there is no value; nothing is computed by hand here.
//!
//! Knows one node and its operands; knows no graph.

use prost::Message;

use crate::engine::dialect::widened;
use crate::engine::{self, Limits, Source, dialect};
use crate::facts::budget::{Budget, Estimate};
use crate::facts::estimate::estimate;
use crate::facts::evaluate::{is_defined, is_sound};
use crate::facts::operators::operator;
use crate::facts::row::{FoldingRule, InputsRead, TypeRule};
use crate::onnx::data::TensorError;
use crate::onnx::float::Float;
use crate::onnx::ids::ValueId;
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::storage::Storage;
use crate::onnx::tensor::{self, Initializer};
use crate::onnx::write;

/// Why a constant has no value here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Nothing computes it in its type as ONNX says.
    #[error("nothing computes it in its type as ONNX says")]
    NotEvaluated,
    /// It exceeds a limit of what is evaluated.
    #[error("{0}")]
    Beyond(&'static str),
}

/// Why an evaluation ended without a value.
#[derive(Debug, thiserror::Error)]
pub enum NoValue {
    /// The constant has no value here.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// Something that is stored in the file is malformed.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl NoValue {
    /// Returns why the constant has no value here.
    ///
    /// # Errors
    /// Returns an error if the file is malformed.
    pub fn unknown(self) -> Result<Unknown, Invalid> {
        match self {
            NoValue::Unknown(why) => Ok(why),
            NoValue::Invalid(error) => Err(error),
        }
    }
}

impl From<TensorError> for NoValue {
    fn from(error: TensorError) -> Self {
        NoValue::Invalid(error.into())
    }
}

/// The limit that is met if evaluating a constant takes too much.
pub const TOO_LARGE: &str =
    "it takes more elements or multiply-adds than constants of a file of this size may";

/// A node, and everything that its value follows from.
pub struct ConstantNode<'a> {
    /// The node as it stands.
    pub node: &'a Node,
    /// The node in types that the engine knows ([`in_known_types`]).
    pub proto: NodeProto,
    /// How its operator is evaluated.
    pub rule: FoldingRule,
    /// The operator set of its model.
    pub opset: i64,
    /// Its operands under their names, with their data inside.
    pub operands: Vec<TensorProto>,
    /// The same operands in types that the engine knows ([`widened::tensor`]).
    pub widened: Vec<TensorProto>,
    /// Where the data of tensors lies that is not inside them yet.
    pub storage: &'a Storage,
    /// What evaluations may take.
    pub budget: &'a Budget,
}

impl ConstantNode<'_> {
    /// Returns the outputs with these names, which are of the type `wanted`; `None` for each
    /// that is not what ONNX says. `name` is the output that was asked for.
    ///
    /// # Errors
    /// Returns an error if nothing computes them here, or an operand is malformed.
    pub fn evaluate(
        self,
        name: &str,
        outputs: &[String],
        wanted: i32,
    ) -> Result<Vec<Option<TensorProto>>, NoValue> {
        let ConstantNode { node, proto, rule, opset, operands, widened, storage, budget } = self;
        let estimate = estimate(rule.estimate, node, &widened, storage)?;
        if !(rule.is_taken)(&widened) || !is_sound(&rule, &operands) {
            return Err(Unknown::NotEvaluated.into());
        }
        let estimate = estimate.ok_or(Unknown::NotEvaluated)?;
        if !budget.spend(estimate) {
            return Err(Unknown::Beyond(TOO_LARGE).into());
        }
        // The engine takes a norm in training mode for one in inference mode, and zeros to which
        // nobody gives a type for float64; and in an Einsum, it does not broadcast sizes of 1.
        let nodes =
            if rule.needs_dialect { dialect::node(proto, opset, &|_| None) } else { vec![proto] };
        let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let model = write::model(opset, vec![], nodes, widened, &names);
        let source = Source::small(model.encode_to_vec(), Limits::of_reading());
        let values = engine::evaluate(source).map_err(|error| {
            budget.note(&error, || format!("the constant `{name}`"));
            Unknown::NotEvaluated
        })?;
        let mut own = Vec::with_capacity(outputs.len());
        for (name, value) in outputs.iter().zip(values) {
            let value = in_own_type(name, value, wanted)?;
            own.push(value.filter(|value| is_defined(&rule, &operands, value)));
        }
        Ok(own)
    }
}

/// Returns what the engine gave for `name`, if that is of the `wanted` type. What it computed in
/// float32 in the place of bfloat16 is rounded.
fn in_own_type(
    name: &str,
    value: TensorProto,
    wanted: i32,
) -> Result<Option<TensorProto>, TensorError> {
    let is_widened = wanted == Float::Bf16.to_onnx() && value.data_type() == Float::F32.to_onnx();
    if is_widened {
        let values = tensor::floats(&value, &Storage::default())?;
        return Ok(Some(tensor::from_floats(name, &values, Float::Bf16)));
    }
    let is_own = value.data_type() == wanted;
    Ok(is_own.then(|| TensorProto { name: Some(name.to_owned()), ..value }))
}

/// Returns `node` without the types that the engine does not know. The second input of CastLike,
/// which may be no constant but is of the type `like`, becomes an attribute; bfloat16 becomes
/// float32, and the result is rounded.
pub fn in_known_types(node: &Node, like: Option<i32>, storage: &Storage) -> Option<NodeProto> {
    let mut proto = write::without_notes(&node.proto);
    let reads = node.standard_op().and_then(operator).map(|operator| operator.reads);
    if reads == Some(InputsRead::ElementsThenType) {
        proto.op_type = Some("Cast".into());
        proto.input.truncate(1);
        proto.attribute = vec![write::int("to", like?.into())];
    }
    for attribute in &mut proto.attribute {
        if attribute.name() == "to" && attribute.i() == i64::from(Float::Bf16.to_onnx()) {
            attribute.i = Some(Float::F32.to_onnx().into());
        }
        if let Some(tensor) = attribute.t.take() {
            attribute.t = Some(Box::new(widened::tensor(*tensor, storage).ok()?));
        }
    }
    Some(proto)
}

/// Returns the tensor of a `Constant` node.
pub fn stored(node: &Node) -> Option<Initializer> {
    let [attribute] = node.proto.attribute.as_slice() else { return None };
    let float = |dims: Vec<i64>, values: &[f32]| TensorProto {
        dims,
        data_type: Some(DataType::Float.into()),
        float_data: values.to_vec(),
        ..TensorProto::default()
    };
    let int = |dims: Vec<i64>, values: &[i64]| TensorProto {
        dims,
        data_type: Some(DataType::Int64.into()),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    };
    Some(Initializer::Dense(match attribute.name() {
        "value" => attribute.t.as_deref()?.clone(),
        "sparse_value" => return attribute.sparse_tensor.clone().map(Initializer::Sparse),
        "value_float" => float(vec![], &[attribute.f()]),
        "value_floats" => float(vec![attribute.floats.len() as i64], &attribute.floats),
        "value_int" => int(vec![], &[attribute.i()]),
        "value_ints" => int(vec![attribute.ints.len() as i64], &attribute.ints),
        _ => return None,
    }))
}

/// Returns all elements of a stored tensor, sparse or not.
///
/// # Errors
/// Returns an error if writing them out takes too much, or a sparse tensor is malformed.
pub fn written_out(
    stored: Initializer,
    storage: &Storage,
    budget: &Budget,
) -> Result<TensorProto, NoValue> {
    match stored {
        Initializer::Dense(tensor) => Ok(tensor),
        Initializer::Sparse(sparse) if budget.spend(Estimate::of_dims(&sparse.dims)) => {
            Ok(tensor::dense(&sparse, storage)?.ok_or(Unknown::NotEvaluated)?)
        }
        Initializer::Sparse(_) => Err(Unknown::Beyond(TOO_LARGE).into()),
    }
}

/// Returns the element type of the first output of `node`, as far as the types of its inputs are
/// known.
pub fn type_of_result(
    node: &Node,
    rule: TypeRule,
    known: &dyn Fn(ValueId) -> Option<i32>,
) -> Option<i32> {
    let of_input = |index: usize| known(node.input(index)?);
    match rule {
        TypeRule::Unknown => None,
        TypeRule::Always(data_type) => Some(data_type.into()),
        TypeRule::OfInput(index) => of_input(index),
        TypeRule::OfAnyInput => (0..node.inputs.len()).find_map(of_input),
        // Up to operator set 5, `to` was the name of a type.
        TypeRule::OfTo => i32::try_from(node.int("to", 0)).ok().filter(|&to| to != 0),
        TypeRule::OfOutputType => match node.int("output_dtype", 0) {
            0 => of_input(1),
            data_type => Some(data_type as i32),
        },
        TypeRule::OfValue => {
            let value = node.attribute("value").and_then(|value| value.t.as_deref());
            Some(value.map_or(DataType::Float.into(), TensorProto::data_type))
        }
        TypeRule::OfStored => stored(node).map(|stored| stored.element_type()),
    }
}
