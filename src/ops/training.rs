//! Nodes that were exported in training mode, and what they are in a deploy graph: a batch norm
//! uses its running statistics, and a dropout drops nothing.
//!
//! A file means that where training left statistics in it. It does not where these are
//! placeholders (an instance norm may be written as a norm in training mode), nor where the
//! norm's input is the same for every input of the model: weights that are standardized by a
//! norm keep the statistics that they have.
//!
//! Knows one node, its statistics and what its input depends on; no block.

use crate::facts::roles;
use crate::onnx::ids::NodeId;
use crate::onnx::model::Invalid;
use crate::onnx::node::Node;
use crate::onnx::proto::NodeProto;
use crate::onnx::training::{self, NodeMode};
use crate::onnx::write;
use crate::ops::reader::{Reader, Training};
use crate::ops::stop::Stop;
use crate::options::TrainingMode;
use crate::refusal::{NearMiss, NotLinear, Reason, Subject};

/// The nodes of one graph that are in training mode.
#[derive(Debug, Default)]
pub struct TrainingNodes {
    /// What the nodes become.
    pub forms: Vec<(NodeId, NodeProto)>,
    /// The nodes that must stay as they are.
    pub near_misses: Vec<NearMiss>,
}

impl TrainingNodes {
    /// Looks at every live node.
    ///
    /// # Errors
    /// Returns an error if a stored tensor is malformed.
    pub fn find(reader: &Reader) -> Result<Self, Invalid> {
        let mut found = TrainingNodes::default();
        for (id, node) in reader.graph.nodes().filter(|&(id, _)| reader.graph.is_live(id)) {
            // A constant output is no near miss: it is computed as it stands.
            if reader.computes_constant(node) {
                continue;
            }
            match Stop::split(eval_form(reader, node))? {
                Ok(None) => {}
                Ok(Some(form)) => found.forms.push((id, form)),
                Err(why) => {
                    let is_norm = roles::is_batch_norm(node);
                    let subject = if is_norm { Subject::Norm } else { Subject::Node };
                    let node = node.label().to_owned();
                    let reason = Reason::NotLinear { node: node.clone(), why };
                    found.near_misses.push(NearMiss { subject, node, reason });
                }
            }
        }
        Ok(found)
    }
}

/// Returns what `node` is at inference, or `None` if it is not in training mode.
///
/// # Errors
/// Returns an error if it must stay in training mode, or a stored tensor that it needs is
/// malformed.
pub fn eval_form(reader: &Reader, node: &Node) -> Result<Option<NodeProto>, Stop> {
    let opset = reader.graph.model.opset;
    let mode = training::mode(&node.proto, opset);
    let given_by = node.input(2).filter(|_| matches!(mode, NodeMode::GivenBy(_)));
    let given = given_by.map(|given| reader.constants.integers(given)).transpose()?.flatten();
    match (mode.evaluates(|_| given), given_by) {
        (Some(true), _) | (None, None) => return Ok(None),
        (Some(false), _) => {}
        (None, Some(given)) => return Err(reader.not_constant(given).into()),
    }
    becomes_its_eval_form(reader, node)?;
    let form = training::without_mode(node.proto.clone());
    Ok(Some(if opset < 7 { tested(form) } else { form }))
}

/// Checks that `node`, which is in training mode, may leave it.
///
/// # Errors
/// Returns an error if it must stay in training mode, or a stored tensor is malformed.
fn becomes_its_eval_form(reader: &Reader, node: &Node) -> Result<(), Stop> {
    let Training { asked, dependence } = reader.training;
    let is_norm = roles::is_batch_norm(node);
    let varies = node.input(0).is_some_and(|input| dependence.contains(input));
    if is_norm && !varies {
        let why = "its input is the same for every input of the model, and so are its statistics";
        return Err(NotLinear::Training(why).into());
    }
    if reader.graph.yields_more(node) {
        return Err(NotLinear::Unrepresentable("its training outputs are used").into());
    }
    if asked == TrainingMode::Keep {
        return Err(NotLinear::KeptTraining.into());
    }
    if !is_norm {
        return Ok(());
    }
    let (mean, variance) = (statistic(reader, node, 3), statistic(reader, node, 4));
    let (mean, variance) = (mean?, variance?);
    let is_finite = |value: &f64| value.is_finite();
    let is_variance = |value: &f64| is_finite(value) && *value >= 0.0;
    if !mean.iter().all(is_finite) || !variance.iter().all(is_variance) {
        let why = "its stored statistics are not valid: not finite, or below 0";
        return Err(NotLinear::Training(why).into());
    }
    let are_placeholders =
        mean.iter().all(|&mean| mean == 0.0) && variance.iter().all(|&variance| variance == 1.0);
    if are_placeholders && asked == TrainingMode::Auto {
        return Err(NotLinear::Untrained.into());
    }
    Ok(())
}

/// Returns a stored statistic of a norm.
fn statistic(reader: &Reader, node: &Node, index: usize) -> Result<Vec<f64>, Stop> {
    let id = node.input(index).ok_or(NotLinear::Malformed("a statistic is missing"))?;
    Ok(reader.floats(id)?.into_iter().collect())
}

/// Marks a node as one for inference: before opset 7, the attribute `is_test` said so.
fn tested(mut node: NodeProto) -> NodeProto {
    node.attribute.retain(|attribute| attribute.name() != "is_test");
    node.attribute.push(write::int("is_test", 1));
    node
}
