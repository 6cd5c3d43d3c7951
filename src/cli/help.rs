//! The texts of `--help`, `-h` and the manual page, in lines that fit a terminal.
//!
//! Knows how wide a line is; the texts of the flags are in [`arguments`](super::arguments).

use std::io::{self, Write};

use clap::{Arg, Command, CommandFactory};

use super::arguments::Arguments;
use super::exit::CODES;
use super::wrap::wrapped;

/// Number of columns that every terminal has.
const COLUMNS: usize = 80;

/// Number of columns by which clap indents the texts of `--help`.
const INDENT: usize = 10;

/// Returns the command with all its texts, broken into lines that fit a terminal.
pub fn command() -> Command {
    let command = manual().mut_args(|arg: Arg| match arg.get_long_help() {
        Some(help) => {
            let help = wrapped(&help.to_string(), COLUMNS.saturating_sub(INDENT), 0);
            arg.long_help(help)
        }
        None => arg,
    });
    let about = command.get_long_about().map(|about| wrapped(&about.to_string(), COLUMNS, 0));
    match about {
        Some(about) => command.long_about(about),
        None => command,
    }
}

/// Returns the command with unbroken texts, for programs that break lines themselves.
pub fn manual() -> Command {
    Arguments::command().after_long_help(ending())
}

/// Writes the manual page in the format of `man`.
///
/// # Errors
/// Returns an error if it cannot be written.
pub fn write_manual_page(out: &mut dyn Write) -> io::Result<()> {
    let page = clap_mangen::Man::new(Arguments::command());
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    let codes: Vec<(String, &str)> =
        CODES.iter().map(|(code, meaning)| (code.to_string(), *meaning)).collect();
    out.write_all(section("EXAMPLES", &EXAMPLES).as_bytes())?;
    out.write_all(section("EXIT STATUS", &codes).as_bytes())?;
    out.write_all(section("ENVIRONMENT", &ENVIRONMENT).as_bytes())?;
    page.render_version_section(out)
}

/// Returns a section of the manual page: a list of entries, each with its meaning.
fn section(title: &str, entries: &[(impl AsRef<str>, &str)]) -> String {
    // roff needs `\-` for a minus sign that can be copied; `\&` keeps a line from being read as
    // a request.
    let escaped = |text: &str| text.replace('\\', "\\e").replace('-', "\\-");
    let entry = |(thing, meaning): &(_, &str)| {
        let thing: &str = AsRef::as_ref(thing);
        format!(".TP\n\\fB{}\\fR\n\\&{}\n", escaped(thing), escaped(meaning))
    };
    format!(".SH \"{title}\"\n{}", entries.iter().map(entry).collect::<String>())
}

/// Returns the end of `--help`: examples, exit codes and environment variables.
fn ending() -> String {
    let example = |(command, meaning): &(&str, &str)| match command.len() {
        ..=EXAMPLE => format!("  {command:EXAMPLE$} {meaning}\n"),
        _ => format!("  {command}\n  {:EXAMPLE$} {meaning}\n", ""),
    };
    let examples: String = EXAMPLES.iter().map(example).collect();
    let codes = CODES.iter().map(|(code, meaning)| format!("  {code:<3}  {meaning}\n"));
    let codes: String = codes.collect();
    let variable = |(name, meaning): &(&str, &str)| format!("\n  {name:<19}  {meaning}");
    let variables: String = ENVIRONMENT.iter().map(variable).collect();
    format!(
        "Examples:\n{examples}\nExit codes (of many models, that of the first that failed):\n{codes}\nEnvironment:{variables}"
    )
}

/// Upper bound on the length of an example that has its meaning beside it.
const EXAMPLE: usize = 38;

const EXAMPLES: [(&str, &str); 10] = [
    ("acb-fuse resnet.onnx", "what would be fused, what not and why"),
    ("acb-fuse resnet.onnx deploy.onnx", "fuse, verify, write"),
    ("acb-fuse resnet.onnx -o deploy.onnx", "the same"),
    ("acb-fuse resnet.onnx resnet.onnx", "the same, in place"),
    ("cat resnet.onnx | acb-fuse - - | …", "in a pipe"),
    ("acb-fuse --look models/ a.onnx", "a line for each model"),
    ("acb-fuse --check models/", "in a test: exit code 5 if work remains"),
    ("acb-fuse --out-dir deploy *.onnx", "a line each; goes on after a failure"),
    ("acb-fuse in.onnx out.onnx --report r.html", "and a page of what was done"),
    ("acb-fuse --completions zsh > _acb-fuse", "completions of a shell"),
];

const ENVIRONMENT: [(&str, &str); 2] =
    [("NO_COLOR", "no colours"), ("RAYON_NUM_THREADS", "as --threads")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_terminal() {
        let mut command = command();
        let helps = [command.render_help(), command.render_long_help()];
        for help in helps.map(|help| help.to_string()) {
            let long: Vec<&str> =
                help.lines().filter(|line| line.chars().count() > COLUMNS).collect();
            assert!(long.is_empty(), "{}", long.join("\n"));
        }
    }
}
