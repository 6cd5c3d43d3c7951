//! A small drawing of a block: its branches one below the other, and what they become.
//!
//! Knows the words for the steps of a branch; does not know what these steps compute.

use std::sync::Arc;

use crate::report::BlockReport;
use crate::report::html::drawing::is_tensor;
use crate::report::html::markup::cut_to;
use crate::report::words::kernel;

/// Upper bounds on the number of branches that are drawn, and on the steps of a branch.
const MOST_BRANCHES: usize = 6;
const MOST_STEPS: usize = 5;
/// Upper bound on the characters of a step.
const CHARACTERS: usize = 22;

/// Returns one node, or one step, as a box.
pub fn chip(text: &str) -> String {
    format!("<span class=\"chip\">{}</span>", cut_to(text, CHARACTERS))
}

/// Draws a lane for each branch, and one for the steps after their sum.
pub fn before(block: &BlockReport) -> String {
    let branches = &block.steps.branches;
    let mut html: String = branches.iter().take(MOST_BRANCHES).map(|steps| lane(steps)).collect();
    let more = branches.len().saturating_sub(MOST_BRANCHES);
    if more > 0 {
        let noun = if more == 1 { "branch" } else { "branches" };
        html.push_str(&lane(&[format!("{more} more {noun}").into()]));
    }
    if !block.steps.after.is_empty() {
        html.push_str(&lane(&[&["↳".into()], block.steps.after.as_slice()].concat()));
    }
    html
}

/// Draws a lane for each convolution that the block becomes, and for each branch that stays as
/// it is.
pub fn after(block: &BlockReport) -> String {
    let convolutions = block.geometry.iter().map(|shape| vec![Arc::from(kernel(shape))]);
    let stays = |steps: &&Vec<Arc<str>>| steps.iter().any(|step| is_tensor(step));
    let others = block.steps.branches.iter().filter(stays).cloned();
    let lanes: Vec<Vec<Arc<str>>> = convolutions.chain(others).collect();
    let mut html: String = lanes.iter().take(MOST_BRANCHES).map(|steps| lane(steps)).collect();
    let more = lanes.len().saturating_sub(MOST_BRANCHES);
    if more > 0 {
        html.push_str(&lane(&[format!("{more} more").into()]));
    }
    html
}

fn lane(steps: &[Arc<str>]) -> String {
    let more = (steps.len() > MOST_STEPS).then(|| chip("…"));
    let steps: String = steps.iter().take(MOST_STEPS).map(|step| chip(step)).chain(more).collect();
    format!("<div>{steps}</div>")
}
