//! Compiles `proto/onnx.proto` to Rust types without needing `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/onnx.proto");
    let schema = protox::compile(["proto/onnx.proto"], ["proto"])?;
    prost_build::Config::new()
        // Weights are views into the mapped file, never copies.
        .bytes(["."])
        // Boxed: inline, these fields would take room in every attribute, although hardly any
        // attribute holds them, and every node has some attributes.
        .boxed(".onnx.SparseTensorProto.values")
        .boxed(".onnx.SparseTensorProto.indices")
        .boxed(".onnx.AttributeProto.tp")
        .boxed(".onnx.AttributeProto.t")
        .boxed(".onnx.AttributeProto.g")
        .boxed(".onnx.TensorProto.segment")
        // The schema's comments are indented like code and would run as doc tests.
        .disable_comments(["."])
        .compile_fds(schema)?;
    Ok(())
}
