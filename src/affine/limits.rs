//! Bounds on multiplying kernels out.
//!
//! Knows geometries; multiplies nothing.

use crate::affine::geometry::Geometry;
use crate::affine::refusal::Refusal;

/// Upper bound on the weights of a kernel that is multiplied out; larger kernels are composed
/// only with maps that scale. Both factors and the product are in memory, in float64, which for
/// two kernels of 2²⁸ weights would be 6 GB. A proof is bounded by the same number of elements.
const MOST_WEIGHTS: f64 = (1 << 25) as f64;

/// Upper bound on the multiply-adds of one product, which take about ten seconds. Two kernels of
/// 2²⁴ taps in a row have no more weights than are allowed, but would take 2⁴⁸ multiply-adds.
const MOST_PRODUCTS: f64 = (1_u64 << 35) as f64;

/// Checks whether a kernel with this number of weights may be multiplied out.
///
/// # Errors
/// Returns an error if it has too many.
pub fn check_weights(weights: f64) -> Result<(), Refusal> {
    if weights > MOST_WEIGHTS { Err(Refusal::Weights(weights as u64)) } else { Ok(()) }
}

/// Checks whether `composed`, which is `outer ∘ inner`, may be multiplied out.
///
/// # Errors
/// Returns an error if a kernel has too many weights, or the product takes too many
/// multiply-adds.
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
