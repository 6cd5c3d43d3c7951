//! The blocks on the page: a table of all, and the details of some.
//!
//! Knows the report's blocks and how text is marked up; does not know how charts are drawn.

use std::collections::BTreeSet;

use crate::report::BlockReport;
use crate::report::html::charts::{HeatMaps, comparison};
use crate::report::html::drawing::drawing;
use crate::report::html::markup::{UNKNOWN, cut, fact, grouped, left_out, put, sentence, shown};
use crate::report::quantization;
use crate::report::words::{branches_and_norms, convolution};

/// Upper bound on the number of blocks shown in detail; those that are harder to quantize come
/// first.
const DETAILED: usize = 200;
/// Upper bound on the number of rows of the table.
const ROWS: usize = 20_000;
/// Upper bound on the names of each kind, and on the convolutions, that are listed for one
/// block.
const NAMES: usize = 40;

/// Returns the sections of the blocks; empty if there are none.
pub fn blocks(blocks: &[BlockReport], heat_maps: &mut HeatMaps) -> String {
    if blocks.is_empty() {
        return String::new();
    }
    let detailed = detailed(blocks);
    let mut html = table(blocks, &detailed);
    html.push_str("<h2>Details</h2>\n");
    if blocks.len() > detailed.len() {
        put!(
            html,
            "<p class=\"soft\">{} blocks are shown: first those that are harder to quantize, then \
             others in the order of the model. The JSON report has all of them.</p>\n",
            detailed.len()
        );
    }
    for (at, block) in blocks.iter().enumerate().filter(|(at, _)| detailed.contains(at)) {
        // The first block is open, so that readers see what a block's details are.
        let open = if at == 0 { " open" } else { "" };
        put!(
            html,
            "<details id=\"b{at}\"{open}><summary><strong>{}</strong> {}</summary>\n{}</details>\n",
            shown(&block.name),
            shown(&branches_and_norms(block)),
            details(block, heat_maps)
        );
    }
    html
}

/// Returns the indices of the blocks that are shown in detail.
fn detailed(blocks: &[BlockReport]) -> BTreeSet<usize> {
    let (harder, others): (Vec<_>, Vec<_>) =
        blocks.iter().enumerate().partition(|(_, block)| block.hint.is_some());
    harder.into_iter().chain(others).map(|(at, _)| at).take(DETAILED).collect()
}

fn table(blocks: &[BlockReport], detailed: &BTreeSet<usize>) -> String {
    let mut html = "<h2>Blocks</h2>\n<div class=\"scroll\"><table><tr><th>block</th>\
                    <th>branches</th><th class=\"n\">nodes</th><th class=\"n\">parameters</th>\
                    <th class=\"n\">multiply-adds per position</th><th class=\"n\">proof</th></tr>\n"
        .to_owned();
    for (at, block) in blocks.iter().enumerate().take(ROWS) {
        let name = cut(&block.name);
        let name =
            if detailed.contains(&at) { format!("<a href=\"#b{at}\">{name}</a>") } else { name };
        let mark = if block.hint.is_some() { " <span class=\"hint\">⚠</span>" } else { "" };
        let proof = block.proof.map(|proof| format!("{:.1e}", proof.error));
        let change = |before: f64, after: f64| format!("{} → {}", grouped(before), grouped(after));
        let (before, after) = (&block.before, &block.after);
        put!(
            html,
            "<tr><td>{name}{mark}</td><td>{}</td><td class=\"n\">{} → {}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
            shown(&branches_and_norms(block)),
            before.nodes,
            after.nodes,
            change(before.parameters as f64, after.parameters as f64),
            change(before.multiply_adds_per_position, after.multiply_adds_per_position),
            proof.unwrap_or_else(|| UNKNOWN.to_owned())
        );
    }
    html.push_str("</table></div>\n");
    html.push_str(&left_out(blocks.len(), ROWS, "block"));
    html
}

fn details(block: &BlockReport, heat_maps: &mut HeatMaps) -> String {
    let mut html = String::new();
    if let Some(hint) = &block.hint {
        put!(html, "<p class=\"hint\">⚠ {}</p>\n", sentence(hint));
    }
    put!(html, "<div class=\"scroll\">{}</div>\n", drawing(block));
    for kept in &block.kept_apart {
        put!(html, "<p>{}</p>\n", sentence(&kept.told()));
    }
    for compared in block.weights.iter().flatten() {
        put!(html, "<p>int8 weights: {}</p>\n", quantization::change(compared));
        html.push_str(&comparison(compared, heat_maps));
    }
    html.push_str("<dl>");
    for shape in block.geometry.iter().take(NAMES) {
        html.push_str(&fact("becomes", &convolution(shape)));
    }
    if let Some(positions) = block.positions {
        html.push_str(&fact("output positions", &grouped(positions)));
    }
    for (what, names) in [
        ("right where", block.conditions.as_slice()),
        ("reads", &block.reads),
        ("nodes removed", &block.removed_nodes),
        ("nodes made", &block.new_nodes),
        ("tensors made", &block.new_tensors),
        ("computes", std::slice::from_ref(&block.output)),
    ] {
        if !names.is_empty() {
            html.push_str(&fact(what, &list(names)));
        }
    }
    html.push_str("</dl>\n");
    html
}

/// Formats names as code, with the number of those that are left out.
fn list(names: &[String]) -> String {
    let listed = names.iter().take(NAMES).map(|name| format!("<code>{}</code>", shown(name)));
    let mut list = listed.collect::<Vec<_>>().join(", ");
    if let Some(more) = names.len().checked_sub(NAMES).filter(|&more| more > 0) {
        put!(list, " and {more} more");
    }
    list
}
