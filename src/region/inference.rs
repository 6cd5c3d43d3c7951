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
    let trains_by_default = |node: &Node| opset < 7 && node.int("is_test", 0) == 0;
    let form = match node.standard_op() {
        Some("BatchNormalization") => {
            // `training_mode` since opset 14; before, further outputs mean training.
            let further = node.outputs.iter().skip(1).flatten().next().is_some();
            let trains = match opset {
                14.. => node.int("training_mode", 0) != 0,
                7.. => further,
                _ => trains_by_default(node),
            };
            match () {
                () if !trains => return Ok(None),
                () if reader.yields_more(node) => {
                    Err(NotLinear::Unrepresentable("its training outputs are used"))
                }
                () => Ok(norm_at_inference(node, opset)),
            }
        }
        Some("Dropout") if trains_by_default(node) && !reader.yields_more(node) => {
            Ok(tested(node.proto.clone()))
        }
        Some("Dropout") => match node.input(2) {
            None => return Ok(None),
            Some(mode) => match reader.constants.integers(mode)?.as_deref() {
                Some([0]) => return Ok(None),
                Some(_) if reader.yields_more(node) => {
                    Err(NotLinear::Unrepresentable("the mask of what it drops is used"))
                }
                Some(_) => Ok(without_mode(node)),
                None => Err(reader.not_constant(mode)),
            },
        },
        _ => return Ok(None),
    };
    Ok(Some(form))
}

fn norm_at_inference(node: &Node, opset: i64) -> NodeProto {
    let mut form = node.proto.clone();
    form.output.truncate(1);
    form.attribute.retain(|attribute| attribute.name() != "training_mode");
    if opset < 7 { tested(form) } else { form }
}

fn without_mode(node: &Node) -> NodeProto {
    let mut form = node.proto.clone();
    form.input.truncate(2);
    while form.input.last().is_some_and(String::is_empty) {
        form.input.pop();
    }
    form
}

/// Before opset 7 an attribute said what a node is for.
fn tested(mut node: NodeProto) -> NodeProto {
    node.attribute.retain(|attribute| attribute.name() != "is_test");
    node.attribute.push(build::int("is_test", 1));
    node
}
