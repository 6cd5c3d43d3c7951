//! Sizes in words.
//!
//! Knows numbers; not what they are sizes of.

/// Formats one number per axis: `3×3`.
pub fn times(sizes: &[impl ToString]) -> String {
    sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
}

/// Names a branch by its taps per axis, as in `the 1×1 branch`; `None` is the identity, scaled or
/// not, and an empty list the matrix.
pub fn branch(kernel: Option<&[i64]>) -> String {
    match kernel {
        None => "the identity".to_owned(),
        Some([]) => "the matrix".to_owned(),
        Some(taps) => format!("the {} branch", times(taps)),
    }
}
