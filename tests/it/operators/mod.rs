//! What each operator means, by ONNX's own tests and by ONNX Runtime's outputs.

mod conformance;
mod constants;
mod half_precision;
mod interpreter;
mod shapes;
mod table;
mod training_mode;
