//! What multiplying kernels out may take.
//!
//! Knows geometries; multiplies nothing.

use crate::affine::geometry::Geometry;
use crate::affine::refusal::Refusal;

/// Kernels of more weights are composed with what scales them and with nothing else: both
/// factors and the product are in memory, in float64. Of two kernels of 2²⁸ weights, 6 GB would
/// be. A proof takes no more elements, either.
const MOST_WEIGHTS: f64 = (1 << 25) as f64;

/// Multiply-adds of one product: some ten seconds. Two kernels of 2²⁴ taps in a row have no more
/// weights than are allowed, and would take 2⁴⁸.
const MOST_PRODUCTS: f64 = (1_u64 << 35) as f64;

/// Whether a kernel of so many `weights` is multiplied out.
///
/// # Errors
/// If it is not.
pub fn check_weights(weights: f64) -> Result<(), Refusal> {
    if weights > MOST_WEIGHTS { Err(Refusal::Weights(weights as u64)) } else { Ok(()) }
}

/// Whether `composed`, which is `outer ∘ inner`, is multiplied out.
///
/// # Errors
/// If it takes too much.
pub fn check_product(
    outer: &Geometry,
    inner: &Geometry,
    composed: &Geometry,
) -> Result<(), Refusal> {
    check_weights(outer.weights().max(inner.weights()).max(composed.weights()))?;
    // Each weight of the outer kernel meets all weights that make the channel it reads.
    let made = inner.channels.map_or(1.0, |channels| channels.outputs as f64);
    let read = if outer.channels.is_none() { made } else { 1.0 };
    let products = outer.weights() * read * inner.weights() / made;
    if products > MOST_PRODUCTS { Err(Refusal::Products(products as u64)) } else { Ok(()) }
}
