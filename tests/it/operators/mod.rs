//! Tests of what each operator means, against ONNX's own tests and ONNX Runtime's outputs.

mod conformance;
mod constants;
mod half_precision;
mod interpreter;
mod shapes;
mod table;
mod training_mode;
