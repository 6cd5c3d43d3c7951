//! A block's branches as lanes of an SVG, before and after.
//!
//! Knows the words in which the steps of a branch come, and not what these steps compute.

#![allow(clippy::arithmetic_side_effects, reason = "coordinates, and counts of what is in memory")]

use std::sync::Arc;

use crate::report::html::markup::{put, shown};
use crate::report::words::kernel;
use crate::report::{BlockReport, Shape};

/// So many branches of a block are drawn, and so many steps of one.
const MOST_BRANCHES: usize = 8;
const MOST_STEPS: usize = 4;

/// Of a step before: its width, and the height of all boxes.
const BOX_WIDTH: f64 = 84.0;
const BOX_HEIGHT: f64 = 26.0;
/// Width of a step after, which names a whole convolution.
const WIDE_BOX: f64 = 110.0;
/// From one step of a branch to the next.
const GAP: f64 = 18.0;
/// From a lane's middle to that of the next.
const LANE: f64 = 38.0;
/// Width of the curve from the dot to a lane, and from there to the sum.
const CURVE: f64 = 24.0;
/// From the end of one part of the drawing to the next one.
const LINE: f64 = 16.0;
/// Of the circle that stands for a sum.
const RADIUS: f64 = 9.0;

/// The steps of a branch in words.
type Branch = Vec<Arc<str>>;

/// The block before and after.
pub fn drawing(block: &BlockReport) -> String {
    let (before, after) = (before(block), after(block));
    let height = before.len().max(after.len()).max(1) as f64 * LANE + 6.0;
    let mut lanes = Lanes { svg: String::new(), middle: height / 2.0 };
    let mut x = lanes.sum(8.0, &before, BOX_WIDTH);
    for step in block.steps.after.iter().take(MOST_STEPS) {
        x = lanes.line(x);
        lanes.step((x, lanes.middle), BOX_WIDTH, step);
        x += BOX_WIDTH;
    }
    lanes.line(x);
    put!(lanes.svg, "<text class=\"big\" x=\"{}\" y=\"{}\">⇒</text>", x + 48.0, lanes.middle + 7.0);
    let end = lanes.sum(x + 80.0, &after, WIDE_BOX);
    lanes.line(end);
    let width = end + 24.0;
    format!(
        "<svg class=\"draw\" role=\"img\" aria-label=\"{} becomes one convolution\" width=\"{width}\" \
         height=\"{height}\" viewBox=\"0 0 {width} {height}\">{}</svg>",
        shown(&block.branches),
        lanes.svg
    )
}

/// The branches of the block as it was read, of which the last may say how many more there are.
fn before(block: &BlockReport) -> Vec<Branch> {
    let cut = |steps: &Branch| -> Branch {
        let more = (steps.len() > MOST_STEPS).then(|| "…".into());
        steps.iter().take(MOST_STEPS).cloned().chain(more).collect()
    };
    let all = &block.steps.branches;
    let more = all.len().checked_sub(MOST_BRANCHES).filter(|&more| more > 0);
    let more = more.map(|more| vec![format!("{more} more").into()]);
    all.iter().take(MOST_BRANCHES).map(cut).chain(more).collect()
}

/// The convolutions that the block becomes, and the branches that stay as they are.
fn after(block: &BlockReport) -> Vec<Branch> {
    let convolution = |shape: &Shape| -> Branch { vec![kernel(shape).into()] };
    let convolutions = block.geometry.iter().take(MOST_BRANCHES).map(convolution);
    let stays = |branch: &&Branch| branch.iter().any(|step| is_tensor(step));
    let others = block.steps.branches.iter().filter(stays).take(MOST_BRANCHES).cloned();
    convolutions.chain(others).collect()
}

/// Whether a step stands for a tensor, whose name it is.
pub fn is_tensor(step: &str) -> bool {
    step.starts_with('`')
}

/// Whether a step stands for a kernel.
fn is_kernel(step: &str) -> bool {
    !matches!(step, "norm" | "scale" | "identity" | "…") && !is_tensor(step)
}

/// A drawing that grows from left to right.
struct Lanes {
    svg: String,
    /// How far down the one lane is from which branches part, and where they meet.
    middle: f64,
}

impl Lanes {
    /// A box with `text`, as much of it as fits, that begins at a point.
    fn step(&mut self, (x, y): (f64, f64), width: f64, text: &str) {
        let (shape, ink) =
            if is_kernel(text) { (" class=\"k\"", " class=\"o\"") } else { ("", "") };
        let most = (width / 7.0) as usize;
        let short: String = if text.chars().count() > most {
            text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
        } else {
            text.to_owned()
        };
        put!(
            self.svg,
            "<rect{shape} x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"{BOX_HEIGHT}\" rx=\"3\"/>\
             <text{ink} x=\"{}\" y=\"{}\">{}</text>",
            y - BOX_HEIGHT / 2.0,
            x + width / 2.0,
            y + 4.0,
            shown(&short)
        );
    }

    /// A curve that leaves and arrives level.
    fn curve(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let bend = x1 + (x2 - x1) / 2.0;
        put!(self.svg, "<path d=\"M{x1} {y1}C{bend} {y1},{bend} {y2},{x2} {y2}\"/>");
    }

    /// A short line in the middle from `x` on; returns its end.
    fn line(&mut self, x: f64) -> f64 {
        let end = x + LINE;
        self.curve((x, self.middle), (end, self.middle));
        end
    }

    /// Branches from a point in the middle at `x` to their sum, which is not drawn of one;
    /// returns where that ends.
    fn sum(&mut self, x: f64, branches: &[Branch], width: f64) -> f64 {
        let longest = branches.iter().map(Vec::len).max().unwrap_or(0);
        let begin = x + CURVE;
        let end = begin + longest as f64 * (width + GAP);
        let top = self.middle - (branches.len().max(1) - 1) as f64 * LANE / 2.0;
        for (lane, steps) in (0..).zip(branches) {
            let y = top + f64::from(lane) * LANE;
            self.curve((x, self.middle), (begin, y));
            let mut at = begin;
            for step in steps {
                self.step((at, y), width, step);
                let next = at + width + GAP;
                self.curve((at + width, y), (next, y));
                at = next;
            }
            self.curve((at, y), (end, y));
            self.curve((end, y), (end + CURVE, self.middle));
        }
        if branches.len() <= 1 {
            return end + CURVE;
        }
        let center = end + CURVE + RADIUS;
        put!(
            self.svg,
            "<circle cx=\"{center}\" cy=\"{}\" r=\"{RADIUS}\"/><text x=\"{center}\" y=\"{}\">+</text>",
            self.middle,
            self.middle + 4.0
        );
        center + RADIUS
    }
}
