//! Squares of elements as channels: SpaceToDepth, with the channels in any order, as the
//! equivalent kernel.
//!
//! Knows numbers of channels and sides; no operator.

use ndarray::{ArrayD, IxDyn};

use crate::affine::geometry::{Channels, Geometry};
use crate::affine::kernel::Affine;
use crate::affine::window::Window;

/// A coordinate of an element of a square, which contributes to its channel number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SquareIndex {
    /// The channel that the element is in.
    Channel,
    /// The row of the element in its square.
    Row,
    /// The column of the element in its square.
    Column,
}

/// A map that cuts `[N, C, H, W]` into rectangles whose elements become channels:
/// `[N, C·r·s, H/r, W/s]`. It is defined only where `r` divides `H`, and `s` divides `W`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Squares {
    /// Number of input channels, `C`.
    pub channels: usize,
    /// Rows and columns of a rectangle, `r` and `s`, each at least 1.
    pub sides: [usize; 2],
    /// The coordinates that number the output channels, from the one that changes least often.
    pub order: [SquareIndex; 3],
}

impl Squares {
    /// Numbers of channels, rows and columns, in the order of [`Self::order`].
    fn counts(&self) -> [usize; 3] {
        self.order.map(|index| match index {
            SquareIndex::Channel => self.channels,
            SquareIndex::Row => self.sides[0],
            SquareIndex::Column => self.sides[1],
        })
    }

    /// The kernel without its weights. It counts an output for an incomplete last rectangle too,
    /// and reads zeros there; of a whole number of rectangles nothing is left over.
    pub fn geometry(&self) -> Geometry {
        let outputs = self.counts().into_iter().fold(1usize, usize::saturating_mul);
        let channels = Some(Channels { inputs: self.channels, outputs, groups: 1 });
        let window = |side: usize| {
            let side = i64::try_from(side).ok()?;
            Window::new(side, side, 1, (0, side.checked_sub(1)?))
        };
        let windows = self.sides.iter().filter_map(|&side| window(side)).collect();
        Geometry { channels, windows, ..Geometry::identity() }
    }

    /// The kernel: in each row, the weight of one element is 1.
    pub fn affine(&self) -> Affine {
        let Geometry { windows, .. } = self.geometry();
        let [first, second, third] = self.counts();
        let (outputs, [rows, columns]) = (first * second * third, self.sides);
        let place = |output: usize| {
            let numbers = [output / third / second, output / third % second, output % third];
            let of = |index| {
                let at = self.order.iter().position(|own| *own == index);
                at.and_then(|at| numbers.get(at).copied())
            };
            [SquareIndex::Channel, SquareIndex::Row, SquareIndex::Column].map(of)
        };
        let kernel = ArrayD::from_shape_fn(IxDyn(&[outputs, self.channels, rows, columns]), |at| {
            let read = [at[1], at[2], at[3]].map(Some);
            if place(at[0]) == read { 1.0 } else { 0.0 }
        });
        Affine::conv(kernel, &[], windows, 1)
    }

    /// The window of a kernel behind this one along spatial axis `axis`, for an input that is a
    /// whole number of rectangles: with the least possible padding at the end.
    pub(super) fn behind(&self, axis: usize, window: Window) -> Window {
        let side = self.sides.get(axis).map_or(1, |&side| side as i64);
        Window { slack: window.slack - (side - 1), ..window }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SquareIndex::{Channel, Column, Row};

    /// An order, and the channel, row and column that the first, second, third and last output
    /// channel come from, for two channels cut into rectangles of 2×3.
    #[test]
    fn channels_are_numbered_in_order() {
        for (order, expected) in [
            ([Row, Column, Channel], [[0, 0, 0], [1, 0, 0], [0, 0, 1], [1, 1, 2]]),
            ([Channel, Row, Column], [[0, 0, 0], [0, 0, 1], [0, 0, 2], [1, 1, 2]]),
            ([Channel, Column, Row], [[0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 2]]),
        ] {
            let squares = Squares { channels: 2, sides: [2, 3], order };
            let kernel = squares.affine().kernel();
            assert_eq!(kernel.shape(), [12, 2, 2, 3], "{order:?}");
            assert_eq!(kernel.sum(), 12.0, "{order:?}");
            for (output, [channel, row, column]) in [0, 1, 2, 11].into_iter().zip(expected) {
                assert_eq!(kernel[[output, channel, row, column]], 1.0, "{order:?}: {output}");
            }
        }
    }
}
