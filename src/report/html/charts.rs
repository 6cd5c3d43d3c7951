//! Charts of weights: a heat map for each kernel, and the spread of its output channels.
//!
//! Knows magnitudes; does not know the block or the page that they belong to.

#![allow(clippy::arithmetic_side_effects, reason = "coordinates, and counts of what is in memory")]

use crate::affine::times;
use crate::affine::{Comparison, Spread};
use crate::report::html::markup::{magnitude, put};

/// Upper bounds on the number of cells of all heat maps of a page, and of a single one.
const CELLS: usize = 60_000;
const CELLS_OF_ONE: usize = 1_024;

/// The heat maps of a page, which are drawn until their cells together reach the upper bound.
pub struct HeatMaps {
    /// Number of cells that may still be drawn.
    cells: usize,
}

impl Default for HeatMaps {
    fn default() -> Self {
        HeatMaps { cells: CELLS }
    }
}

impl HeatMaps {
    /// Returns a figure with a cell for each tap of a kernel with the sizes `kernel`, or with a
    /// note that it is not drawn. `caption` must be safe markup.
    pub fn figure(&mut self, kernel: &[usize], values: &[f64], caption: &str) -> String {
        let inner = if values.len() <= CELLS_OF_ONE.min(self.cells) {
            self.cells -= values.len();
            heat_map(kernel, values, caption)
        } else {
            let size = times(kernel);
            format!("<p class=\"soft\">{size} not drawn: see the JSON report</p>")
        };
        format!("<figure>{inner}<figcaption>{caption}</figcaption></figure>")
    }
}

/// Draws the magnitudes of a kernel before and after, by tap and by output channel.
pub fn comparison(compared: &Comparison, heat_maps: &mut HeatMaps) -> String {
    let mut html = "<div class=\"pair\">".to_owned();
    let (before, after) = (&compared.before, &compared.after);
    if after.kernel.iter().any(|&taps| taps > 1) {
        html += &heat_maps.figure(&before.kernel, &before.by_position, "magnitude before");
        html += &heat_maps.figure(&after.kernel, &after.by_position, "magnitude after");
    }
    html += &spreads(&[
        ("stored", &compared.stored),
        ("before", &before.channels),
        ("after", &after.channels),
    ]);
    html += "</div>\n";
    html
}

/// Draws a square for each value: the last axis from left to right, all others downwards.
fn heat_map(kernel: &[usize], values: &[f64], caption: &str) -> String {
    let columns = kernel.last().copied().unwrap_or(1).max(1);
    let rows = values.len().div_ceil(columns);
    let side = match columns.max(rows) {
        ..=7 => 40.0,
        8..=15 => 18.0,
        _ => 9.0,
    };
    let (width, height) = (columns as f64 * side, rows as f64 * side);
    let mut svg = format!(
        "<svg class=\"heat\" role=\"img\" aria-label=\"{caption}\" width=\"{width}\" \
         height=\"{height}\" viewBox=\"0 0 {width} {height}\">"
    );
    for (at, &value) in values.iter().enumerate() {
        let (x, y) = ((at % columns) as f64 * side, (at / columns) as f64 * side);
        put!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" \
             fill-opacity=\"{value:.2}\"/>"
        );
        if columns.max(rows) <= 7 {
            let class = if value > 0.55 { " class=\"o\"" } else { "" };
            put!(
                svg,
                "<text x=\"{}\" y=\"{}\"{class}>{value:.3}</text>",
                x + side / 2.0,
                y + side / 2.0 + 4.0
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

/// The logarithmic scale of all rows of a chart.
struct Scale {
    /// The exponent of the power of ten at the left end.
    low: f64,
    /// Number of powers of ten from the left to the right end.
    decades: f64,
}

impl Scale {
    const LEFT: f64 = 56.0;
    const WIDTH: f64 = 220.0;

    /// Returns a scale that covers all `spreads` that are not zero; `None` if there are none.
    fn of<'s>(spreads: impl Iterator<Item = &'s Spread> + Clone) -> Option<Self> {
        let spreads = spreads.filter(|spread| spread.smallest > 0.0);
        let smallest = spreads.clone().map(|spread| spread.smallest).fold(f64::INFINITY, f64::min);
        let largest = spreads.map(|spread| spread.largest).fold(0.0, f64::max);
        let (low, high) = (smallest.log10().floor(), largest.log10().ceil());
        let is_finite = low.is_finite() && high.is_finite();
        is_finite.then(|| Scale { low, decades: (high - low).max(1.0) })
    }

    fn x(&self, value: f64) -> f64 {
        Self::LEFT + (value.log10() - self.low) / self.decades * Self::WIDTH
    }

    /// Draws lines with labels at powers of ten, at most six of them.
    fn ticks(&self, height: f64) -> String {
        let mut svg = String::new();
        let step = (self.decades / 5.0).ceil();
        let ticks = (0..=(self.decades / step) as i64).map(|tick| tick as f64 * step);
        for decade in ticks {
            let x = Self::LEFT + decade / self.decades * Self::WIDTH;
            let bottom = height - 16.0;
            put!(
                svg,
                "<line class=\"g\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{bottom}\"/>\
                 <text class=\"s\" x=\"{x:.1}\" y=\"{}\">{}</text>",
                height - 4.0,
                power_of_ten(self.low + decade)
            );
        }
        svg
    }

    /// Draws a line from the smallest to the largest value, a box over the quartiles, and a
    /// stroke at the median.
    fn row(&self, spread: &Spread, middle: f64) -> String {
        let [smallest, lower, median, upper, largest] = [
            spread.smallest,
            spread.lower_quartile,
            spread.median,
            spread.upper_quartile,
            spread.largest,
        ]
        .map(|value| self.x(value));
        let ratio = spread.ratio.map_or_else(String::new, |ratio| format!("{ratio:.1}×"));
        format!(
            "<line x1=\"{smallest:.1}\" x2=\"{largest:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
             <rect x=\"{lower:.1}\" y=\"{}\" width=\"{:.1}\" height=\"12\"/>\
             <line class=\"m\" x1=\"{median:.1}\" x2=\"{median:.1}\" y1=\"{}\" y2=\"{}\"/>\
             <text x=\"{}\" y=\"{}\">{ratio}</text>",
            middle - 6.0,
            (upper - lower).max(1.0),
            middle - 7.0,
            middle + 7.0,
            Self::LEFT + Self::WIDTH + 14.0,
            middle + 4.0
        )
    }
}

/// Draws the spread of the largest weights of output channels, a row for each named spread on
/// the same scale; empty if all are zero.
fn spreads(rows: &[(&str, &Spread)]) -> String {
    const ROW: f64 = 26.0;
    let Some(scale) = Scale::of(rows.iter().map(|(_, spread)| *spread)) else {
        return String::new();
    };
    let height = rows.len() as f64 * ROW + 18.0;
    let mut svg = format!(
        "<figure><svg class=\"spread\" role=\"img\" aria-label=\"largest weight per output channel\" \
         width=\"350\" height=\"{height}\" viewBox=\"0 0 350 {height}\">"
    );
    svg.push_str(&scale.ticks(height));
    for (row, (name, spread)) in (0..).zip(rows) {
        let middle = f64::from(row) * ROW + ROW / 2.0;
        put!(svg, "<text x=\"0\" y=\"{}\">{name}</text>", middle + 4.0);
        if spread.smallest > 0.0 {
            svg.push_str(&scale.row(spread, middle));
        }
    }
    svg.push_str("</svg>");
    put!(
        svg,
        "<figcaption>max |w| per output channel: smallest, quartiles, median, largest; at the right \
         largest ÷ median. The largest: {} → {}.</figcaption></figure>",
        rows.iter().rev().nth(1).map_or_else(String::new, |(_, before)| magnitude(before.largest)),
        rows.last().map_or_else(String::new, |(_, after)| magnitude(after.largest))
    );
    svg
}

fn power_of_ten(exponent: f64) -> String {
    match exponent {
        -3.0..=3.0 => format!("{}", 10f64.powf(exponent)),
        _ => format!("1e{exponent}"),
    }
}
