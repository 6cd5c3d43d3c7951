//! Arguments in, exit code out: the tool is in [`cli`], all else in the library.
//!
//! Knows nothing of what is done between the two.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::string_slice))]

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::carry_out(&cli::arguments::Arguments::parse())
}
