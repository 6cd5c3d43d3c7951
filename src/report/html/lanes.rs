//! A block in small: its branches under each other, and what they become.
//!
//! Knows the words in which the steps of a branch come, and not what these steps compute.

use std::sync::Arc;

use crate::report::BlockReport;
use crate::report::html::drawing::is_tensor;
use crate::report::html::markup::cut_to;
use crate::report::words::kernel;

/// So many branches of a block are drawn, and so many steps of one.
const MOST_BRANCHES: usize = 6;
const MOST_STEPS: usize = 5;
/// So many characters of a step are shown.
const CHARACTERS: usize = 22;

/// One node, or one step, as a box.
pub fn chip(text: &str) -> String {
    format!("<span class=\"chip\">{}</span>", cut_to(text, CHARACTERS))
}

/// A lane per branch, and one for what comes after their sum.
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

/// A lane per convolution that it becomes, and per branch that stays as it is.
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
