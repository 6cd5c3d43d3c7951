//! The claims that are proved of one block: the nodes in its place compute what its nodes
//! computed, from the same tensors, for the inputs for which its meanings are right.
//!
//! Knows the plan and what verification needs to be told; neither of these knows the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::emit::weights::FusedWeights;
use crate::engine::Constant;
use crate::equalize::channels::{ChannelClasses, TensorChannels};
use crate::facts::roles;
use crate::facts::validity::{Property, SizeSet, Validity};
use crate::onnx::ids::{NodeId, ValueId};
use crate::onnx::proto::NodeProto;
use crate::onnx::write;
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::Block;
use crate::verify::border::FilledBorder;
use crate::verify::claim::{Claim, Side, Unproved};
use crate::verify::original::Original;

/// Returns the claims that the `new` nodes compute what `block`'s nodes compute: one for each
/// tensor in `made`, the tensors that both the file and the new nodes have.
pub fn claims(
    reader: &Reader,
    meanings: &Meanings,
    (block, made): (&Block, &[ValueId]),
    new: &Side,
) -> Vec<Claim> {
    let mut roots: Vec<ValueId> = block.terms.iter().map(|term| term.root).collect();
    roots.sort_unstable();
    roots.dedup();
    let borders = block.region.nodes.iter().filter_map(|&id| match meanings.get(id)? {
        Meaning::Linear(_, LinearOp::Bordered { map, inner, windows, .. }) => Some(FilledBorder {
            inner: *inner,
            output: reader.graph.node(id).output()?,
            pads: windows.iter().map(|window| window.pads()).collect(),
            values: map.shift().to_vec(),
        }),
        _ => None,
    });
    let turned = block.turned_roots.iter();
    let turned = turned.map(|turned| turned.transpose(reader.graph.value(turned.root).name));
    let claim = Claim {
        output: block.region.output,
        roots,
        valid: block.valid.clone(),
        borders: borders.collect(),
        turned: turned.collect(),
        new: new.clone(),
    };
    let claim = |output| Claim { output, ..claim.clone() };
    made.iter().copied().map(claim).collect()
}

/// Returns the claims that node `id` makes its outputs times the factors of their channels from
/// its inputs times theirs, with `new` tensors in the place of stored ones: one claim for each
/// output.
///
/// # Errors
/// Returns an error if a constant that the node reads cannot be computed.
pub fn scaled_node(
    original: &Original,
    id: NodeId,
    classes: &ChannelClasses,
    factors: &[f64],
    new: &BTreeMap<ValueId, FusedWeights>,
) -> Result<Vec<Claim>, Unproved> {
    let (graph, node) = (original.graph, original.graph.node(id));
    let factors_of = |id: ValueId| {
        let channels = classes.tensors.get(&id).filter(|_| classes.is_free(id))?;
        Some((channels, classes.factors(id, factors)?))
    };
    let (mut nodes, mut constants, mut roots) = (Vec::new(), Vec::new(), Vec::new());
    let mut valid = Validity::default();
    let type_of = |id: Option<ValueId>| original.constants.element_type(id?);
    // The proof computes in float64, where a cast to the model's own type would round.
    let is_same = roles::casts(node) && type_of(node.input(0)) == original.cast_to(node);
    let own = node.proto.clone();
    let mut read = if is_same { write::into_identity(own) } else { own };
    let mut seen: Vec<ValueId> = Vec::new();
    for (name, input) in read.input.iter_mut().zip(&node.inputs) {
        let Some(input) = *input else { continue };
        let is_new = !seen.contains(&input);
        seen.push(input);
        if let Some(weights) = new.get(&input) {
            if is_new {
                let (name, dims) = (&weights.name, &weights.dims);
                constants.push(Constant::doubles(name, dims, Arc::clone(&weights.numbers)));
            }
        } else if original.is_constant(input) {
            if is_new {
                constants.push(original.value(input)?);
            }
        } else {
            if is_new {
                roots.push(input);
            }
            if let Some((channels, own)) = factors_of(input) {
                // There is a factor for each of its channels.
                let size = SizeSet::Exactly(own.len() as i64);
                valid.require(input, Property::Rank(channels.rank));
                valid.require(input, Property::Size(channels.axis, size));
                let scaled = format!("{name} times its factors");
                if is_new {
                    nodes.push(product(channels, (name, &scaled), own, &mut constants));
                }
                *name = scaled;
            }
        }
    }
    let claims = node.outputs.iter().enumerate().filter_map(|(at, output)| {
        let output = (*output)?;
        if graph.value(output).readers.is_empty() && !graph.value(output).is_output {
            return None;
        }
        let (mut own, mut nodes, mut constants) = (read.clone(), nodes.clone(), constants.clone());
        let name = own.output.get_mut(at)?;
        let made = name.clone();
        let unscaled = factors_of(output).map(|(channels, own)| {
            *name = format!("{made} times its factors");
            let inverse = own.into_iter().map(f64::recip).collect();
            product(channels, (name, &made), inverse, &mut constants)
        });
        nodes.push(own);
        nodes.extend(unscaled);
        let new = Side { nodes, constants };
        let (roots, valid) = (roots.clone(), valid.clone());
        Some(Claim { output, roots, valid, borders: Vec::new(), turned: Vec::new(), new })
    });
    Ok(claims.collect())
}

/// Returns the node that multiplies tensor `from` with `factors` along its channels to make
/// `to`, and adds the tensor of factors to `constants`.
fn product(
    channels: &TensorChannels,
    (from, to): (&str, &str),
    factors: Vec<f64>,
    constants: &mut Vec<Constant>,
) -> NodeProto {
    let name = format!("{to}: factors");
    let behind = channels.rank.saturating_sub(channels.axis).saturating_sub(1);
    let mut dims = vec![factors.len() as i64];
    dims.resize(behind.saturating_add(1), 1);
    constants.push(Constant::doubles(&name, &dims, Arc::new(factors)));
    write::product(from, &name, to)
}
