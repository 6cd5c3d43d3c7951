//! What a node that is left alone looks like by itself: whether anybody would have expected it
//! in a block. The nodes around it may say so, too; that is judged by those who look there.
//!
//! Knows why nodes are not linear; knows nothing of what stands around them.

use crate::facts::roles;
use crate::onnx::ids::NodeId;
use crate::ops::meaning::Meaning;
use crate::plan::net::Net;
use crate::refusal::{NotLinear, Reason};

/// What a node that is not linear looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// A linear node, but for a limit of what is tried.
    Limited,
    /// A linear node, but for what the reason says.
    Linear,
    /// A node that has a number of its own for each position, where a linear one has one per
    /// channel.
    OfPositions,
    /// Another operator of the standard.
    Operator,
    /// Any node: its operator is a custom one.
    Foreign,
}

/// Returns what node `id` looks like; `None` if it is linear.
pub fn likeness(net: &Net, id: NodeId) -> Option<Likeness> {
    Some(match why(net, id)? {
        NotLinear::Limit(_) => Likeness::Limited,
        // A kernel that is evaluated may be stored, whatever stands around it.
        NotLinear::Beyond { .. } if roles::slides(net.reader.graph.node(id)) => Likeness::Limited,
        NotLinear::Operator(_) => Likeness::Operator,
        NotLinear::Foreign(_) => Likeness::Foreign,
        NotLinear::NotPerChannel { dims, .. }
            if dims.iter().filter(|&&dim| dim != 1).nth(1).is_some() =>
        {
            Likeness::OfPositions
        }
        _ => Likeness::Linear,
    })
}

/// Returns the reason why node `id` is not linear, if it is not.
pub fn reason(net: &Net, id: NodeId) -> Option<Reason> {
    let why = why(net, id)?.clone();
    Some(Reason::NotLinear { node: net.reader.graph.node(id).label().to_owned(), why })
}

fn why<'n>(net: &'n Net, id: NodeId) -> Option<&'n NotLinear> {
    match net.meanings.get(id)? {
        Meaning::Opaque(why) => Some(why),
        _ => None,
    }
}
