//! The whole model before and after as one drawing: an overview of all nodes, and under it the
//! layers in order, stage by stage.
//!
//! A block has one colour wherever it is drawn. Knows layers and blocks; not what they compute.

#![allow(clippy::arithmetic_side_effects, reason = "coordinates, and counts of what is in memory")]

use std::ops::Range;

use crate::report::html::lanes::{after, before, chip};
use crate::report::html::markup::{cut, put};
use crate::report::words::counted;
use crate::report::{BlockReport, Layer, Layers, Report};

/// So many rows are drawn.
const MOST_ROWS: usize = 1_000;
/// So many rows a stage has before a strided layer begins the next one, and at most.
const ROWS_OF_STAGE: Range<usize> = 8..100;
/// Stages are open if the model has no more rows.
const FEW_ROWS: usize = 40;
/// So many kinds of nodes in a row are named between two blocks.
const OPERATORS: usize = 24;
/// So many colours there are; blocks take them in turn.
const COLOURS: usize = 6;

/// A block, or the nodes that stay between two blocks: each operator and how often it stands in
/// a row.
enum DrawnRow<'r> {
    Block { number: usize, block: &'r BlockReport },
    Stays { operators: Vec<(&'r str, usize)>, names: [&'r str; 2], is_strided: bool },
    Body,
}

impl DrawnRow<'_> {
    /// Nodes before and after.
    fn nodes(&self) -> [usize; 2] {
        match self {
            DrawnRow::Block { block, .. } => [block.before.nodes, block.after.nodes],
            DrawnRow::Stays { operators, .. } => {
                [operators.iter().map(|(_, count)| count).sum(); 2]
            }
            DrawnRow::Body => [0; 2],
        }
    }

    /// Whether it makes fewer positions than it reads.
    fn is_strided(&self) -> bool {
        match self {
            DrawnRow::Block { block, .. } => {
                block.geometry.iter().flat_map(|shape| &shape.strides).any(|&stride| stride > 1)
            }
            DrawnRow::Stays { is_strided, .. } => *is_strided,
            DrawnRow::Body => true,
        }
    }
}

/// The drawing; empty of a model that was not read, and of one without blocks.
pub fn model(report: &Report) -> String {
    let Some(layers) = report.layers.as_ref().filter(|_| !report.blocks.is_empty()) else {
        return String::new();
    };
    let mut rows = rows(layers, &report.blocks);
    let all: [usize; 2] = sum(&rows);
    let mut html = format!(
        "<h2>The model before and after</h2>\n<p class=\"soft\">{} → {} nodes. Each block has a \
         colour; what is grey stays as it is.</p>\n",
        all[0] + layers.left_out,
        all[1] + layers.left_out
    );
    html.push_str(&overview(&rows, all));
    let undrawn = rows.len().saturating_sub(MOST_ROWS);
    rows.truncate(MOST_ROWS);
    let open = if rows.len() <= FEW_ROWS { " open" } else { "" };
    for (number, stage) in (1..).zip(stages(&rows)) {
        let blocks = stage.iter().filter(|row| matches!(row, DrawnRow::Block { .. })).count();
        let [before, after] = sum(stage);
        let names = names(stage).map(|names| format!(" <span class=\"soft\">{names}</span>"));
        put!(
            html,
            "<details class=\"stage\"{open}><summary><strong>Stage {number}</strong> {}, {before} → \
             {after} nodes{}</summary>\n",
            counted(blocks, "block"),
            names.unwrap_or_default()
        );
        stage.iter().for_each(|row| html.push_str(&drawn(row)));
        html.push_str("</details>\n");
    }
    if undrawn + layers.left_out > 0 {
        put!(
            html,
            "<p class=\"soft\">{undrawn} further rows of layers and {} further nodes are not \
             drawn.</p>\n",
            layers.left_out
        );
    }
    html
}

/// What is drawn row by row: nodes that stay stand together.
fn rows<'r>(layers: &'r Layers, blocks: &'r [BlockReport]) -> Vec<DrawnRow<'r>> {
    let mut rows: Vec<DrawnRow> = Vec::new();
    for layer in &layers.layers {
        match layer {
            Layer::Block(number) => {
                let number = *number;
                rows.extend(blocks.get(number).map(|block| DrawnRow::Block { number, block }));
            }
            Layer::Body => rows.push(DrawnRow::Body),
            Layer::Node { operator, name, is_strided: strided } => match rows.last_mut() {
                // A strided layer may begin a stage, so it begins a row.
                Some(DrawnRow::Stays { operators, names, .. }) if !strided => {
                    names[1] = name;
                    match operators.last_mut().filter(|(last, _)| last == operator) {
                        Some((_, count)) => *count += 1,
                        None => operators.push((operator, 1)),
                    }
                }
                _ => rows.push(DrawnRow::Stays {
                    operators: vec![(operator, 1)],
                    names: [name, name],
                    is_strided: *strided,
                }),
            },
        }
    }
    rows
}

/// The rows cut where the positions become fewer.
fn stages<'r, 'b>(rows: &'r [DrawnRow<'b>]) -> Vec<&'r [DrawnRow<'b>]> {
    let mut begins = vec![0];
    for (at, row) in rows.iter().enumerate() {
        let length = at - begins.last().copied().unwrap_or_default();
        let ends = row.is_strided() && length >= ROWS_OF_STAGE.start;
        if ends || length >= ROWS_OF_STAGE.end {
            begins.push(at);
        }
    }
    let ends = begins.iter().copied().skip(1).chain([rows.len()]);
    begins.iter().zip(ends).filter_map(|(&begin, end)| rows.get(begin..end)).collect()
}

fn sum(rows: &[DrawnRow]) -> [usize; 2] {
    let nodes = || rows.iter().map(DrawnRow::nodes);
    [nodes().map(|[before, _]| before).sum(), nodes().map(|[_, after]| after).sum()]
}

/// The first and the last block of a stage.
fn names(stage: &[DrawnRow]) -> Option<String> {
    let mut blocks = stage.iter().filter_map(|row| match row {
        DrawnRow::Block { block, .. } => Some(&block.name),
        _ => None,
    });
    let first = blocks.next()?;
    Some(match blocks.last() {
        Some(last) => format!("{} … {}", cut(first), cut(last)),
        None => cut(first),
    })
}

/// All nodes side by side, before and after, on one scale.
fn overview(rows: &[DrawnRow], all: [usize; 2]) -> String {
    const WIDTH: f64 = 1000.0;
    let most = all[0].max(all[1]).max(1) as f64;
    let mut html = "<div class=\"overview\">".to_owned();
    for (what, side) in [("before", 0), ("after", 1)] {
        put!(
            html,
            "<span>{what}</span><svg role=\"img\" aria-label=\"the nodes {what}\" viewBox=\"0 0 \
             {WIDTH} 24\" preserveAspectRatio=\"none\">"
        );
        let mut x = 0.0;
        for row in rows {
            let width = row.nodes()[side] as f64 / most * WIDTH;
            let class = match row {
                DrawnRow::Block { number, .. } => format!("c{}", number % COLOURS),
                _ => "stays".to_owned(),
            };
            put!(html, "<rect class=\"{class}\" x=\"{x:.2}\" width=\"{width:.2}\" height=\"24\"/>");
            x += width;
        }
        put!(html, "</svg><span class=\"n\">{}</span>", all[side]);
    }
    html.push_str("</div>\n");
    html
}

/// A row: of a block what it was, an arrow, and what it is.
fn drawn(row: &DrawnRow) -> String {
    match row {
        DrawnRow::Block { number, block } => format!(
            "<div class=\"row c{}\"><div class=\"of\">{}</div><div class=\"lanes\">{}</div>\
             <div class=\"arrow\">⇒</div><div class=\"lanes\">{}</div><div class=\"n\">{} → {} nodes</div>\
             </div>\n",
            number % COLOURS,
            cut(&block.name),
            before(block),
            after(block),
            block.before.nodes,
            block.after.nodes
        ),
        DrawnRow::Stays { operators, names: [first, last], .. } => {
            let chips = operators.iter().take(OPERATORS).map(|&(operator, count)| match count {
                1 => chip(operator),
                count => chip(&format!("{operator} ×{count}")),
            });
            let more = operators.len().saturating_sub(OPERATORS);
            let more = (more > 0).then(|| chip(&format!("{more} more")));
            let title = if first == last {
                cut(first)
            } else {
                format!("{} … {}", cut(first), cut(last))
            };
            let chips: String = chips.chain(more).collect();
            format!("<div class=\"row stays\" title=\"{title}\">{chips}</div>\n")
        }
        DrawnRow::Body => {
            "<div class=\"row soft\">a body of an If, Loop or Scan</div>\n".to_owned()
        }
    }
}
