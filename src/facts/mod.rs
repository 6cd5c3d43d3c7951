//! What is known of tensors without running anything: how many dimensions, which sizes,
//! which integers; and what has to hold of them for a reading to be right.
//!
//! [`shape_rules`] are rules of ONNX's operators, each a function of one node and of what is
//! known of its operands: whoever asks says what is known, be it true of a file or only
//! supposed. [`reach`] tells how far windows look, and [`validity`] for which inputs a reading
//! is right. None of them knows an engine.

pub mod budget;
pub mod constants;
pub mod dependence;
pub mod evaluate;
pub mod operators;
pub mod propagation;
pub mod reach;
pub mod shape_rules;
pub mod shapes;
pub mod validity;
