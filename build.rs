//! Compiles `proto/onnx.proto` to Rust types without needing `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/onnx.proto");
    let schema = protox::compile(["proto/onnx.proto"], ["proto"])?;
    prost_build::Config::new()
        // Weights are views into the mapped file, never copies.
        .bytes(["."])
        // The schema's comments are indented like code and would run as doc tests.
        .disable_comments(["."])
        .compile_fds(schema)?;
    Ok(())
}
