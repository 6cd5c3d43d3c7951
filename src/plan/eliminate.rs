//! Tensors that go away only if all their readers are computed without them: a norm before
//! three products, a Pad before two convolutions. For each reader alone, nothing is gained.
//!
//! Knows the planner's graph, forms and costs; does not search for other forms.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use crate::affine::Macs;
use crate::onnx::ids::{IdMap, IdSet, NodeId, ValueId};
use crate::plan::candidate::Candidate;
use crate::plan::cost::{Count, Gain};
use crate::plan::net::Net;
use crate::plan::refused::Refused;

/// Upper bound on the readers of one tensor that are looked at; in real networks there are some
/// dozens.
const MAX_READERS: usize = 256;

/// Plans the readers of each tensor without it, if that pays for all of them together and none
/// of the forms is `refused`. Returns the tensors whose forms, or whose numbers of reads, have
/// changed.
pub fn eliminate(net: &mut Net, refused: &Refused) -> Vec<ValueId> {
    let tensors: Vec<(NodeId, ValueId)> = net.tensors().collect();
    let mut readers: IdMap<ValueId, Vec<NodeId>> = IdMap::default();
    for &(id, _) in tensors.iter().filter(|(_, output)| refused.allows(*output)) {
        for term in net.terms(id) {
            let readers = readers.entry(term.root).or_default();
            if readers.last() != Some(&id) {
                readers.push(id);
            }
        }
    }
    // The search does not read through joined parts for one reader alone, even if that reader
    // reads the tensor several times.
    let are_tried = |net: &Net, id: NodeId, readers: &[NodeId]| {
        let are_several = (2..=MAX_READERS).contains(&readers.len());
        are_several || (readers.len() == 1 && net.terms(id).iter().any(|term| term.part.is_some()))
    };
    let mut changed: IdSet<NodeId> = IdSet::default();
    let mut values = Vec::new();
    for tensor in tensors {
        let Some(readers) = readers.get(&tensor.1) else { continue };
        if !are_tried(net, tensor.0, readers)
            || !refused.allows(tensor.1)
            || changed.contains(&tensor.0)
            || readers.iter().any(|reader| changed.contains(reader))
        {
            continue;
        }
        let Some(candidates) = without(net, tensor, readers, refused) else { continue };
        for (&reader, candidate) in readers.iter().zip(candidates) {
            values.extend(net.plan(reader, candidate.form, candidate.steps));
            changed.insert(reader);
        }
        changed.insert(tensor.0);
    }
    values
}

/// Returns the forms of `readers` without the tensor that node `id` makes, if nothing else reads
/// it and these forms together are better.
fn without(
    net: &Net,
    (id, output): (NodeId, ValueId),
    readers: &[NodeId],
    refused: &Refused,
) -> Option<Vec<Candidate>> {
    let reads = |reader: &NodeId| {
        let roots = net.terms(*reader).iter().map(|term| term.root);
        roots.filter(|root| *root == output).count()
    };
    if readers.iter().map(reads).sum::<usize>() != net.reads(output) {
        return None;
    }
    let once = Macs::each(1.0);
    let mut all = Gain { before: net.mffc(id, net.terms(id)).count, after: Count::default() };
    // Multiply-adds are counted per position of a reader.
    all.before.macs = Macs::default();
    let mut candidates = Vec::new();
    for &reader in readers {
        let mut candidate = Candidate::at(net, reader)?;
        if !candidate.expand(net, id) {
            return None;
        }
        let (before, after) = (net.count(reader), net.cost(&candidate.form.terms));
        let made = net.reader.graph.node(reader).output()?;
        if !candidate.is_legal(net)
            || !refused.allows_form(made, &candidate.form.terms)
            || !after.macs.no_more_than(&before.macs)
        {
            return None;
        }
        all.before.add(&before, once);
        all.after.add(&after, once);
        candidates.push(candidate);
    }
    all.pays_beyond(&Gain::default()).then_some(candidates)
}
