//! What `--help`, `-h` and the manual say, in lines that fit a terminal.
//!
//! Knows how wide a line is; the texts of the flags are in [`arguments`](super::arguments).

use clap::{Arg, Command, CommandFactory};

use super::arguments::Arguments;
use super::exit::CODES;

/// So many columns every terminal has.
const COLUMNS: usize = 80;

/// So far clap indents the texts of `--help`.
const INDENT: usize = 10;

/// The command with all its texts, each line of which fits.
pub fn command() -> Command {
    let command = manual().mut_args(|arg: Arg| match arg.get_long_help() {
        Some(help) => {
            let help = wrapped(&help.to_string(), COLUMNS.saturating_sub(INDENT));
            arg.long_help(help)
        }
        None => arg,
    });
    let about = command.get_long_about().map(|about| wrapped(&about.to_string(), COLUMNS));
    match about {
        Some(about) => command.long_about(about),
        None => command,
    }
}

/// The same for a reader that breaks lines itself.
pub fn manual() -> Command {
    Arguments::command().after_long_help(ending())
}

/// Examples, exit codes and variables.
fn ending() -> String {
    let codes = CODES.iter().map(|(code, meaning)| format!("  {code:<3}  {meaning}\n"));
    let codes: String = codes.collect();
    format!(
        "{EXAMPLES}\n\nExit codes (of many models, that of the first that failed):\n{codes}\n{ENVIRONMENT}"
    )
}

const EXAMPLES: &str = "\
Examples:
  acb-fuse resnet.onnx                   what would be fused, what not and why
  acb-fuse resnet.onnx deploy.onnx       fuse, verify, write
  acb-fuse resnet.onnx -o deploy.onnx    the same
  acb-fuse resnet.onnx resnet.onnx       the same, in place
  cat resnet.onnx | acb-fuse - - | …     in a pipe
  acb-fuse --look models/ a.onnx         a line for each model
  acb-fuse --check models/               in a test: exit code 5 if work remains
  acb-fuse --out-dir deploy *.onnx       a line each; goes on after a failure
  acb-fuse in.onnx out.onnx --report r.html
                                         and a page of what was done
  acb-fuse --completions zsh > _acb-fuse completions of a shell";

const ENVIRONMENT: &str = "\
Environment:
  NO_COLOR             no colours
  RAYON_NUM_THREADS    as --threads";

/// `text` in lines of no more than `width` characters, its paragraphs as they are.
fn wrapped(text: &str, width: usize) -> String {
    let paragraphs = text.split('\n').map(|paragraph| {
        let mut lines = vec![String::new()];
        for word in paragraph.split(' ') {
            let Some(line) = lines.last_mut() else { continue };
            let length = line.chars().count().saturating_add(word.chars().count());
            if line.is_empty() {
                line.push_str(word);
            } else if length < width {
                line.push(' ');
                line.push_str(word);
            } else {
                lines.push(word.to_owned());
            }
        }
        lines.join("\n")
    });
    paragraphs.collect::<Vec<String>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_full_and_no_longer() {
        for (text, expected) in [
            ("a bc de", "a bc\nde"),
            ("abcdef gh", "abcdef\ngh"),
            ("ab cd", "ab cd"),
            ("a\n\nb", "a\n\nb"),
            ("", ""),
        ] {
            assert_eq!(wrapped(text, 5), expected, "{text}");
        }
    }

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
