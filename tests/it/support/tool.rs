//! Runs the tool as a process and as a library.
use std::path::Path;
use std::process::{Command, Stdio};

use acb_fuse::report::Report;
use acb_fuse::{Clobber, Endpoint, Failure, Options, convert};

/// Returns a command that runs the tool with nothing on its standard input.
pub fn tool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acb-fuse"));
    command.stdin(Stdio::null());
    command
}

/// Returns the default options as changed by `set`.
pub fn options(set: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    set(&mut options);
    options
}

/// Converts a model through the library.
pub fn converts(input: &Path, output: &Path, options: &Options) -> Result<Report, Failure> {
    let file = |path: &Path| Endpoint::File(path.to_owned());
    let mut options = options.clone();
    if options.clobber == Clobber::Replace {
        // One path takes the results of many models.
        options.clobber = Clobber::Force;
    }
    convert(&file(input), Some(&file(output)), &options)
}

/// The same for a conversion that must succeed.
pub fn converted(input: &Path, output: &Path, options: &Options) -> Report {
    converts(input, output, options).unwrap_or_else(|error| panic!("{}: {error}", input.display()))
}

/// Converts a model as the tool is meant to be used: verified, with the default options.
pub fn fused(input: &Path, output: &Path) -> Report {
    converted(input, output, &Options::default())
}

/// Looks at a model: returns what would be fused, and writes nothing.
pub fn looked(input: &Path, options: &Options) -> Report {
    convert(&Endpoint::File(input.to_owned()), None, options)
        .unwrap_or_else(|error| panic!("{}: {error}", input.display()))
}
