//! The whole model before and after as one drawing: an overview of all nodes, and below it the
//! layers in order, stage by stage.
//!
//! A block has the same colour wherever it is drawn. Knows layers and blocks; does not know what
//! they compute.

#![allow(clippy::arithmetic_side_effects, reason = "coordinates, and counts of what is in memory")]

use std::ops::Range;

use crate::report::html::lanes::{after, before, chip};
use crate::report::html::markup::{cut, put};
use crate::report::words::counted;
use crate::report::{BlockReport, Layer, Layers, Report};

/// Upper bound on the number of rows that are drawn.
const MOST_ROWS: usize = 1_000;
/// The number of rows after which a strided layer begins the next stage, and the upper bound on
/// the rows of a stage.
const ROWS_OF_STAGE: Range<usize> = 8..100;
/// Upper bound on the rows of a model whose stages are all open.
const FEW_ROWS: usize = 40;
/// Upper bound on the number of entries, each for equal nodes in a row, between two blocks.
const OPERATORS: usize = 24;
/// Number of colours, which blocks take in turn.
const COLOURS: usize = 6;

/// A row: a block, or the nodes between two blocks as a list of operators, each with the number
/// of its nodes that stand in a row.
enum DrawnRow<'r> {
    Block {
        number: usize,
        block: &'r BlockReport,
        removed: usize,
    },
    /// Constants and other nodes that nothing reads any more.
    Unread(Vec<(&'r str, usize)>),
    Stays {
        operators: Vec<(&'r str, usize)>,
        first: &'r str,
        last: &'r str,
        is_strided: bool,
    },
    Body,
}

impl DrawnRow<'_> {
    /// Returns the number of nodes before and after.
    fn nodes(&self) -> [usize; 2] {
        match self {
            DrawnRow::Block { block, removed, .. } => [*removed, block.after.nodes],
            DrawnRow::Unread(operators) => [operators.iter().map(|(_, count)| count).sum(), 0],
            DrawnRow::Stays { operators, .. } => {
                [operators.iter().map(|(_, count)| count).sum(); 2]
            }
            DrawnRow::Body => [0; 2],
        }
    }

    /// Whether a stage may begin here: the output has fewer positions than the input, or a body
    /// begins.
    fn is_strided(&self) -> bool {
        match self {
            DrawnRow::Block { block, .. } => {
                block.geometry.iter().flat_map(|shape| &shape.strides).any(|&stride| stride > 1)
            }
            DrawnRow::Stays { is_strided, .. } => *is_strided,
            DrawnRow::Unread(_) => false,
            DrawnRow::Body => true,
        }
    }
}

/// Returns the section with the drawing; empty without layers or without blocks.
pub fn model(report: &Report) -> String {
    let Some(layers) = report.layers.as_ref().filter(|_| !report.blocks.is_empty()) else {
        return String::new();
    };
    let mut rows = rows(layers, &report.blocks);
    let all = sum(&rows);
    let [before, after] = all.map(|nodes| nodes + layers.left_out);
    let mut html = format!(
        "<h2>The model before and after</h2>\n<p class=\"soft\">{} → {} nodes. Each block has a \
         colour. Grey nodes stay as they are; struck-out nodes go, because nothing reads them any \
         more.</p>\n",
        before, after
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

/// Returns the rows of the drawing; consecutive nodes that stay share a row, and so do those
/// that nothing reads any more.
fn rows<'r>(layers: &'r Layers, blocks: &'r [BlockReport]) -> Vec<DrawnRow<'r>> {
    let mut rows: Vec<DrawnRow> = Vec::new();
    for layer in &layers.layers {
        match (layer, rows.last_mut()) {
            (Layer::Block { number, removed }, _) => {
                let (number, removed) = (*number, *removed);
                let block = blocks.get(number);
                rows.extend(block.map(|block| DrawnRow::Block { number, block, removed }));
            }
            (Layer::Body, _) => rows.push(DrawnRow::Body),
            (Layer::Unread { operator }, Some(DrawnRow::Unread(operators))) => {
                count(operators, operator);
            }
            (Layer::Unread { operator }, _) => rows.push(DrawnRow::Unread(vec![(operator, 1)])),
            // A strided layer may begin a stage, so it begins a row.
            (
                Layer::Node { operator, name, is_strided: false },
                Some(DrawnRow::Stays { operators, last, .. }),
            ) => {
                *last = name;
                count(operators, operator);
            }
            (Layer::Node { operator, name, is_strided }, _) => rows.push(DrawnRow::Stays {
                operators: vec![(operator, 1)],
                first: name,
                last: name,
                is_strided: *is_strided,
            }),
        }
    }
    rows
}

/// Appends one node to a list of operators, in which equal ones in a row are counted together.
fn count<'r>(operators: &mut Vec<(&'r str, usize)>, operator: &'r str) {
    match operators.last_mut().filter(|(last, _)| *last == operator) {
        Some((_, count)) => *count += 1,
        None => operators.push((operator, 1)),
    }
}

/// Cuts the rows into stages, where the number of positions becomes smaller.
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

/// Names the first and the last block of a stage; `None` if it has no block.
fn names(stage: &[DrawnRow]) -> Option<String> {
    let mut blocks = stage.iter().filter_map(|row| match row {
        DrawnRow::Block { block, .. } => Some(&block.name),
        _ => None,
    });
    let first = blocks.next()?;
    Some(match blocks.next_back() {
        Some(last) => format!("{} … {}", cut(first), cut(last)),
        None => cut(first),
    })
}

/// Draws all nodes side by side, before and after, on the same scale.
fn overview(rows: &[DrawnRow], [before, after]: [usize; 2]) -> String {
    let most = before.max(after);
    format!(
        "<div class=\"overview\">{}{}</div>\n",
        strip(rows, "before", (before, most), |[before, _]| before),
        strip(rows, "after", (after, most), |[_, after]| after)
    )
}

/// Draws `all` nodes of one side as a strip that has room for `most` nodes.
fn strip(
    rows: &[DrawnRow],
    what: &str,
    (all, most): (usize, usize),
    of: impl Fn([usize; 2]) -> usize,
) -> String {
    const WIDTH: f64 = 1000.0;
    let mut html = format!(
        "<span>{what}</span><svg role=\"img\" aria-label=\"the nodes {what}\" viewBox=\"0 0 {WIDTH} \
         24\" preserveAspectRatio=\"none\">"
    );
    let mut x = 0.0;
    for row in rows {
        let width = of(row.nodes()) as f64 / most.max(1) as f64 * WIDTH;
        let class = match row {
            DrawnRow::Block { number, .. } => format!("c{}", number % COLOURS),
            _ => "stays".to_owned(),
        };
        put!(html, "<rect class=\"{class}\" x=\"{x:.2}\" width=\"{width:.2}\" height=\"24\"/>");
        x += width;
    }
    put!(html, "</svg><span class=\"n\">{all}</span>");
    html
}

/// Draws a row; for a block, what it was, an arrow, and what it becomes.
fn drawn(row: &DrawnRow) -> String {
    match row {
        DrawnRow::Block { number, block, removed } => format!(
            "<div class=\"row c{}\"><div class=\"of\">{}</div><div class=\"lanes\">{}</div>\
             <div class=\"arrow\">⇒</div><div class=\"lanes\">{}</div><div class=\"n\">{} → {} nodes</div>\
             </div>\n",
            number % COLOURS,
            cut(&block.name),
            before(block),
            after(block),
            removed,
            block.after.nodes
        ),
        DrawnRow::Unread(operators) => {
            format!("<div class=\"row stays unread\">{}</div>\n", chips(operators))
        }
        DrawnRow::Stays { operators, first, last, .. } => {
            let title = if first == last {
                cut(first)
            } else {
                format!("{} … {}", cut(first), cut(last))
            };
            format!("<div class=\"row stays\" title=\"{title}\">{}</div>\n", chips(operators))
        }
        DrawnRow::Body => {
            "<div class=\"row soft\">a body of an If, Loop or Scan</div>\n".to_owned()
        }
    }
}

/// Draws a list of operators.
fn chips(operators: &[(&str, usize)]) -> String {
    let chips = operators.iter().take(OPERATORS).map(|&(operator, count)| match count {
        1 => chip(operator),
        count => chip(&format!("{operator} ×{count}")),
    });
    let more = operators.len().saturating_sub(OPERATORS);
    chips.chain((more > 0).then(|| chip(&format!("{more} more")))).collect()
}
