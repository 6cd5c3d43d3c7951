//! How the kernels of convolutions and products are laid out in their tensors.
//!
//! Knows the two layouts, and no operator.

/// The axes of a stored kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelLayout {
    /// `[O, C/groups, k…]`.
    OutputsFirst,
    /// `[C, O/groups, k…]`.
    InputsFirst,
}
