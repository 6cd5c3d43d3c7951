//! Channel equalization: factors per channel that lose less in rounding to 8 bits.
//!
//! Between two kernels, every channel may be multiplied by a positive number that the next
//! kernel divides by: `W₂·s⁻¹·f(s·(W₁x + b))`, where `f(s·x) = s·f(x)`. [`classes`] finds the
//! channels that share one factor, and those that have none; [`observed`] runs the model and
//! measures how large its tensors are; [`noise`] predicts the noise that rounding makes in the
//! outputs, whose minimum [`minimum`] finds; [`balanced`] equalizes the ranges where no inputs
//! are known; [`scaled`] makes the new tensors; [`gate`] runs both models on 8 bits and decides
//! whether the factors pay; [`int8`] runs a model with only its weights rounded.
//!
//! Knows operators by their [`crate::ops::scaling`] rule, and the engine; edits nothing, and
//! proves nothing.

pub mod balanced;
pub mod channels;
pub mod classes;
pub mod gate;
pub mod int8;
pub mod minimum;
pub mod noise;
pub mod observed;
pub mod placed;
pub mod scaled;
pub mod sensitivity;
pub mod unscaled;
