//! Fuses the blocks of a model, and proves it: `cargo run --example fuse -- IN.onnx OUT.onnx`.

use std::error::Error;
use std::path::PathBuf;

use acb_fuse::{Options, Progress, fuse_file};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: fuse IN.onnx OUT.onnx".into());
    };
    let mut options = Options::default();
    options.run.samples = 3;
    options.progress = |progress| {
        if let Progress::Proving { done, all } = progress {
            eprintln!("{done} of {all} blocks are fused and proved");
        }
    };
    match fuse_file(&input, &output, &options) {
        Ok(report) => {
            print!("{report}");
            Ok(())
        }
        Err(failure) => {
            eprintln!("{} blocks were found", failure.report.blocks.len());
            Err(failure.into())
        }
    }
}
