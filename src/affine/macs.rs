//! Multiply-adds, counted without knowing sizes: per position, plus what borders change.
//!
//! Knows geometries; no weights.

use crate::affine::geometry::{ConvKind, Geometry};

/// Multiply-adds on a feature map of m positions along each of its d axes:
/// `each·mᵈ + edge·mᵈ⁻¹`. The second term is what padding adds and cropping saves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Macs {
    /// Multiply-adds per position.
    pub each: f64,
    /// Multiply-adds per position of one side.
    pub edge: f64,
}

/// The least number of positions along each axis for which feature maps are compared: a stage in
/// the middle of a network.
const POSITIONS: f64 = 32.0;

/// Tolerance, relative to the larger count: sums in another order differ by rounding.
const ROUNDING: f64 = 1e-9;

impl Macs {
    /// `multiply_adds` at each position, whatever borders there are.
    pub fn each(multiply_adds: f64) -> Self {
        Macs { each: multiply_adds, edge: 0.0 }
    }

    /// These multiply-adds, given in positions of the input of `map`, in positions of its output:
    /// `n = stride·m − stride − slack` inputs make m outputs.
    #[must_use]
    pub fn before(self, map: &Geometry) -> Self {
        let axes = map.windows.len();
        let (mut all, mut missing) = (1.0, 0.0);
        for window in &map.windows {
            let (stride, slack) = (window.stride as f64, window.slack as f64);
            // n = a·m − c, as factor a and c/a.
            let (factor, lost) = match map.kind {
                ConvKind::Conv | ConvKind::MatMul => (stride, (stride + slack) / stride),
                ConvKind::ConvTranspose => (1.0 / stride, slack - stride),
            };
            all *= factor;
            missing += lost;
        }
        // The factor along one of d axes, on average.
        let one = if all == 1.0 { 1.0 } else { f64::powf(all, 1.0 / axes as f64) };
        Macs { each: self.each * all, edge: self.edge * all / one - self.each * all * missing }
    }

    /// The sum of both counts.
    #[must_use]
    pub fn plus(self, other: Macs) -> Self {
        Macs { each: self.each + other.each, edge: self.edge + other.edge }
    }

    /// These multiply-adds at each of `positions`, to the first order.
    #[must_use]
    pub fn at(self, positions: Macs) -> Self {
        Macs {
            each: self.each * positions.each,
            edge: self.edge * positions.each + self.each * positions.edge,
        }
    }

    /// Whether this count is at most `other` on all feature maps of at least `POSITIONS` per
    /// axis.
    pub fn no_more_than(&self, other: &Macs) -> bool {
        let scale = self.each.abs().max(other.each.abs());
        let is_no_more = |mine: f64, others: f64| mine - others <= ROUNDING * scale;
        // Linear in 1/m, so what holds at both ends holds between.
        let at_least = |macs: &Macs| macs.each + macs.edge / POSITIONS;
        is_no_more(self.each, other.each) && is_no_more(at_least(self), at_least(other))
    }
}

impl Geometry {
    /// The multiply-adds of this map per output position.
    pub fn macs(&self) -> Macs {
        let strides = self.windows.iter().map(|window| window.stride as f64);
        Macs::each(match self.kind {
            ConvKind::Conv | ConvKind::MatMul => self.weights(),
            ConvKind::ConvTranspose => self.weights() / strides.product::<f64>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affine::window::Window;

    #[test]
    fn borders_decide_where_positions_cost_the_same() {
        let frame = |pad| Geometry {
            windows: vec![Window::new(1, 1, 1, (pad, pad)).unwrap(); 2],
            ..Geometry::identity()
        };
        let macs = Macs::each(16.0);
        // (m − 2)² and (m + 2)² positions.
        assert_eq!(macs.before(&frame(1)), Macs { each: 16.0, edge: -64.0 });
        assert_eq!(macs.before(&frame(-1)), Macs { each: 16.0, edge: 64.0 });
        assert_eq!(macs.before(&frame(1)).before(&frame(-1)), macs);
        assert!(macs.no_more_than(&macs.before(&frame(-1))));
        assert!(!macs.no_more_than(&macs.before(&frame(1))));
        // Less on a map of 32 positions, more on one of 1,000.
        let (before, after) = (Macs { each: 88.0, edge: 640.0 }, Macs::each(96.0));
        assert!(!after.no_more_than(&before) && !before.no_more_than(&after));
        let strided = Geometry {
            windows: vec![Window::new(3, 2, 1, (1, 1)).unwrap(); 2],
            ..Geometry::identity()
        };
        // (2m − 1)² positions.
        assert_eq!(macs.before(&strided), Macs { each: 64.0, edge: -64.0 });
    }
}
