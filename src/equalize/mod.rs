//! Factors of channels, by which 8 bits say more.
//!
//! Between two kernels every channel may be multiplied by a positive number that the next
//! kernel divides by: `W₂·s⁻¹·f(s·(W₁x + b))`, where `f(s·x) = s·f(x)`. [`classes`] finds the
//! channels that share one factor, and those that have none; [`observed`] runs the model and
//! tells how large its tensors are; [`noise`] predicts the noise that rounding makes in the
//! outputs, of which [`minimum`] finds the least, [`balanced`] equal ranges where no inputs are
//! known; [`scaled`] makes the new tensors, and [`gate`] runs both on 8 bits and says whether
//! that pays; [`int8`] runs a model with rounded weights alone.
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
