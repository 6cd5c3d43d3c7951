//! Nodes that were exported in training mode, and what they are in a deploy graph:
//! a batch norm uses its running statistics, a dropout drops nothing.

use super::read::Reader;
use super::{NearMiss, NotLinear, Reason};
use crate::onnx::build;
use crate::onnx::graph::{Node, NodeId};
use crate::onnx::model::Invalid;
use crate::onnx::proto::NodeProto;

/// Nodes of one graph that are in training mode.
#[derive(Debug, Default)]
pub struct Inferred {
    /// What they become.
    pub forms: Vec<(NodeId, NodeProto)>,
    /// Those that must stay as they are.
    pub near_misses: Vec<NearMiss>,
}

impl Inferred {
    /// Looks at every live node.
    ///
    /// # Errors
    /// If a stored tensor is malformed.
    pub fn find(reader: &Reader) -> Result<Self, Invalid> {
        let mut inferred = Inferred::default();
        for (id, node) in reader.graph.nodes().filter(|&(id, _)| reader.graph.is_live(id)) {
            match inference_form(reader, node)? {
                None => {}
                Some(Ok(form)) => inferred.forms.push((id, form)),
                Some(Err(why)) => {
                    let node = node.label().to_owned();
                    let reason = Reason::NotLinear { node: node.clone(), why };
                    inferred.near_misses.push(NearMiss { node, reason });
                }
            }
        }
        Ok(inferred)
    }
}

/// What `node` is at inference, if it is in training mode; or why it must stay as it is.
///
/// # Errors
/// If a stored tensor that it needs is malformed.
pub fn inference_form(
    reader: &Reader,
    node: &Node,
) -> Result<Option<Result<NodeProto, NotLinear>>, Invalid> {
    let opset = reader.graph.model.opset;
    Ok(match trains(reader, node, opset)? {
        Ok(false) => None,
        Ok(true) if reader.yields_more(node) => {
            Some(Err(NotLinear::Unrepresentable("its training outputs are used")))
        }
        Ok(true) => Some(Ok(at_inference(node, opset))),
        Err(why) => Some(Err(why)),
    })
}

/// Whether `node` is in training mode; or why that is not known.
fn trains(reader: &Reader, node: &Node, opset: i64) -> Result<Result<bool, NotLinear>, Invalid> {
    Ok(Ok(match (node.standard_op(), opset) {
        (Some("BatchNormalization" | "Dropout"), ..7) => node.int("is_test", 0) == 0,
        (Some("BatchNormalization"), 14..) => node.int("training_mode", 0) != 0,
        // Before there was `training_mode`, further outputs meant training.
        (Some("BatchNormalization"), _) => node.outputs.iter().skip(1).any(Option::is_some),
        (Some("Dropout"), _) => match node.input(2) {
            None => false,
            Some(mode) => match reader.constants.integers(mode)? {
                Some(mode) => mode != [0],
                None => return Ok(Err(reader.not_constant(mode))),
            },
        },
        _ => false,
    }))
}

fn at_inference(node: &Node, opset: i64) -> NodeProto {
    let mut form = node.proto.clone();
    if form.op_type() == "BatchNormalization" {
        form.output.truncate(1);
        form.attribute.retain(|attribute| attribute.name() != "training_mode");
    } else {
        form.input.truncate(2);
        while form.input.last().is_some_and(String::is_empty) {
            form.input.pop();
        }
    }
    if opset < 7 { tested(form) } else { form }
}

/// Before opset 7 an attribute said what a node is for.
fn tested(mut node: NodeProto) -> NodeProto {
    node.attribute.retain(|attribute| attribute.name() != "is_test");
    node.attribute.push(build::int("is_test", 1));
    node
}
