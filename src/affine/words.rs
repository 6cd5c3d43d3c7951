//! Sizes in words.
//!
//! Knows numbers, and not what they are sizes of.

/// One number per axis: `3×3`.
pub fn times(sizes: &[impl ToString]) -> String {
    sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
}
