//! Arguments in, exit code out: the tool is in [`cli`], everything else in the library.
//!
//! Knows nothing of what is done in between.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::string_slice))]

mod cli;

use std::process::ExitCode;

use clap::FromArgMatches;
use cli::arguments::Arguments;

fn main() -> ExitCode {
    let found = Arguments::from_arg_matches(&cli::help::command().get_matches());
    cli::carry_out(&found.unwrap_or_else(|error| error.exit()))
}
