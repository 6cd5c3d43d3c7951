//! The drawing of a block, before and after, as an SVG with a lane for each branch.
//!
//! Knows the words for the steps of a branch; does not know what these steps compute.

#![allow(clippy::arithmetic_side_effects, reason = "coordinates, and counts of what is in memory")]

use std::sync::Arc;

use crate::report::html::markup::{put, shown};
use crate::report::words::kernel;
use crate::report::{BlockReport, Shape};

/// Upper bounds on the number of branches that are drawn, and on the steps of a branch.
const MOST_BRANCHES: usize = 8;
const MOST_STEPS: usize = 4;

/// Width of the box of a step before fusing, and height of all boxes.
const BOX_WIDTH: f64 = 84.0;
const BOX_HEIGHT: f64 = 26.0;
/// Width of the box of a step after fusing, which names a whole convolution.
const WIDE_BOX: f64 = 110.0;
/// Distance from the box of a step to the next one in its branch.
const GAP: f64 = 18.0;
/// Distance between the middles of neighbouring lanes.
const LANE: f64 = 38.0;
/// Width of the curve from the point where branches part to a lane, and from a lane to the sum.
const CURVE: f64 = 24.0;
/// Length of the line between two parts of the drawing.
const LINE: f64 = 16.0;
/// Radius of the circle that stands for a sum.
const RADIUS: f64 = 9.0;

/// The words for the steps of a branch.
type Branch = Vec<Arc<str>>;

/// Draws the block before and after.
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

/// Returns the branches of the block before fusing; the last entry may say how many more there
/// are.
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

/// Returns the convolutions that the block becomes, and the branches that stay as they are.
fn after(block: &BlockReport) -> Vec<Branch> {
    let convolution = |shape: &Shape| -> Branch { vec![kernel(shape).into()] };
    let convolutions = block.geometry.iter().take(MOST_BRANCHES).map(convolution);
    let stays = |branch: &&Branch| branch.iter().any(|step| is_tensor(step));
    let others = block.steps.branches.iter().filter(stays).take(MOST_BRANCHES).cloned();
    convolutions.chain(others).collect()
}

/// Whether a step is a tensor; its word is then the tensor's name.
pub fn is_tensor(step: &str) -> bool {
    step.starts_with('`')
}

/// Whether a step is a kernel.
fn is_kernel(step: &str) -> bool {
    !matches!(step, "norm" | "scale" | "identity" | "…") && !is_tensor(step)
}

/// A drawing that grows from left to right.
struct Lanes {
    svg: String,
    /// Vertical position of the lane from which branches part and in which they meet.
    middle: f64,
}

impl Lanes {
    /// Draws a box that begins at the given point, with as much of `text` as fits.
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

    /// Draws a curve that is horizontal at both ends.
    fn curve(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let bend = x1 + (x2 - x1) / 2.0;
        put!(self.svg, "<path d=\"M{x1} {y1}C{bend} {y1},{bend} {y2},{x2} {y2}\"/>");
    }

    /// Draws a short line in the middle lane from `x` on; returns where it ends.
    fn line(&mut self, x: f64) -> f64 {
        let end = x + LINE;
        self.curve((x, self.middle), (end, self.middle));
        end
    }

    /// Draws branches from a point of the middle lane at `x` to their sum, which is left out for
    /// a single branch; returns where the drawing ends.
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
