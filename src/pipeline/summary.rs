//! What would be done, as a report.

use std::collections::HashSet;

use crate::engine::InputShapes;
use crate::facts::shapes::{NO_SHAPES, Sizes};
use crate::onnx::graph::Graph;
use crate::onnx::inline;
use crate::onnx::model::{Invalid, Model};
use crate::ops::meaning::NEWEST_OPSET;
use crate::options::Options;
use crate::pipeline::counts;
use crate::pipeline::edits::{self, Replaced};
use crate::pipeline::open::GraphAnalysis;
use crate::plan::Block;
use crate::refusal::{NearMiss, Reason};
use crate::report::{BlockReport, ConvertedNode, NewerOpset, Report};

/// Notes what would be done with `model`.
///
/// # Errors
/// If an entry cannot be decoded.
pub fn look(
    report: &mut Report,
    model: &Model,
    graphs: &[Graph],
    scopes: &[GraphAnalysis],
    options: &Options,
) -> Result<(), Invalid> {
    let plans = || scopes.iter().map(|scope| &scope.plan);
    let replaced = scopes.iter().map(|scope| {
        let roots = |block: &Block| block.terms.iter().map(|term| term.root).collect();
        let blocks = scope.plan.blocks.iter().map(|block| (block.region.output, roots(block)));
        Replaced::new(scope.reader.graph, blocks.collect(), &scope.inferred.forms)
    });
    let new = plans().flat_map(|plan| &plan.blocks).map(|block| block.after.nodes).sum();
    let nodes_after = edits::nodes_after(graphs, &replaced.collect::<Vec<_>>(), new);
    let inferred = || scopes.iter().map(|scope| &scope.inferred);
    let near_misses = plans().flat_map(|plan| &plan.near_misses);
    let near_misses = near_misses.chain(inferred().flat_map(|inferred| &inferred.near_misses));
    let mut near_misses: Vec<NearMiss> = near_misses.cloned().collect();
    near_misses.extend(calls_that_stay(model, graphs)?);
    let mut said = HashSet::new();
    near_misses.retain(|miss| said.insert((miss.node.clone(), miss.reason.to_string())));
    report.near_misses = near_misses;
    report.sizes.before.nodes = Some(graphs.iter().map(Graph::node_count).sum());
    report.sizes.after.nodes = Some(nodes_after);
    let newer = NewerOpset { model: model.opset, known: NEWEST_OPSET };
    report.notes.newer_opset = Some(newer).filter(|opset| opset.model > opset.known);
    let converted = scopes.iter().flat_map(|scope| {
        let forms = scope.inferred.forms.iter();
        forms.map(|&(id, _)| ConvertedNode::of(scope.reader.graph.node(id)))
    });
    report.notes.converted_nodes = converted.collect();
    report.notes.inferred_nodes = report.notes.converted_nodes.len();
    if options.details {
        report.sizes.before.parameters = Some(counts::parameters(graphs)?);
    }
    note_blocks(report, scopes, options)
}

/// Has the report list the blocks that are planned.
///
/// # Errors
/// If a stored tensor is malformed.
pub fn note_blocks(
    report: &mut Report,
    scopes: &[GraphAnalysis],
    options: &Options,
) -> Result<(), Invalid> {
    report.blocks.clear();
    for scope in scopes {
        let blocks = scope.plan.blocks.iter();
        let blocks = blocks.map(|block| BlockReport::of(scope.reader, block));
        let mut blocks: Vec<BlockReport> = blocks.collect();
        note_conditions(&mut blocks, scope, &options.run.shapes)?;
        report.blocks.append(&mut blocks);
    }
    if options.details {
        let counted = counts::multiply_adds(scopes);
        report.sizes.before.multiply_adds = counted.before;
        report.sizes.after.multiply_adds = counted.after;
        for (block, positions) in report.blocks.iter_mut().zip(counted.positions) {
            block.positions = positions;
        }
    }
    Ok(())
}

/// Has the report say of each block what it is right for, if the file does not promise that
/// by itself.
fn note_conditions(
    reports: &mut [BlockReport],
    scope: &GraphAnalysis,
    shapes: &InputShapes,
) -> Result<(), Invalid> {
    let reader = scope.reader;
    let of_file = Sizes::new(reader.graph, reader.constants, &NO_SHAPES);
    let sizes = if shapes.is_empty() { &reader.sizes } else { &of_file };
    for (report, block) in reports.iter_mut().zip(&scope.plan.blocks) {
        for condition in block.valid.conditions() {
            if !sizes.promises(condition)? {
                report.conditions.push(condition.describe(reader.graph));
            }
        }
    }
    Ok(())
}

/// Calls of functions that hold convolutions or norms and cannot be inlined.
fn calls_that_stay(model: &Model, graphs: &[Graph]) -> Result<Vec<NearMiss>, Invalid> {
    let calls = inline::refused(model, graphs)?;
    let miss = |(node, why): (String, String)| NearMiss { node, reason: Reason::Call(why) };
    Ok(calls.into_iter().map(miss).collect())
}
