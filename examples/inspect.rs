//! Lists the blocks of a model that could be fused, and what is left alone and why:
//! `cargo run --example inspect -- MODEL.onnx`.

use std::error::Error;
use std::path::PathBuf;

use acb_fuse::{Options, inspect_file};

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args_os().nth(1).map(PathBuf::from);
    let model = model.ok_or("usage: inspect MODEL.onnx")?;
    // Reads a file rather than bytes, so that weights in side files are found too.
    let report = inspect_file(&model, &Options::default())?;
    for block in &report.blocks {
        println!("{}: {} from `{}`", block.name, block.branches, block.reads.join("`, `"));
    }
    for miss in &report.near_misses {
        println!("{} is left alone: {}", miss.node, miss.reason);
    }
    Ok(())
}
