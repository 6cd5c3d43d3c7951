//! temp
pub mod affine;
pub mod onnx;
