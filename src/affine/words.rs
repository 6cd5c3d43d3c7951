//! Sizes in words.
//!
//! Knows numbers, and not what they are sizes of.

/// One number per axis: `3×3`.
pub fn times(sizes: &[impl ToString]) -> String {
    sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
}

/// A branch with so many taps per axis, as in `the 1×1 branch`; with none, it is the identity,
/// scaled or not.
pub fn branch(kernel: Option<&[i64]>) -> String {
    match kernel {
        None => "the identity".to_owned(),
        Some([]) => "the matrix".to_owned(),
        Some(taps) => format!("the {} branch", times(taps)),
    }
}
