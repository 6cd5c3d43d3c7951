//! Sizes in words.

/// One number per axis: `3×3`.
pub fn times(sizes: &[impl ToString]) -> String {
    sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
}
