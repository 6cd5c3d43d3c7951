//! Output on a terminal: a progress bar, lines broken at its width, colours where they are
//! wanted, and names without control characters.
//!
//! Knows the terminal and the progress of the work; does not know what is done.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use acb_fuse::Progress;
use acb_fuse::report::escaped;
use acb_fuse::report::text::Tone;
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::stage;
use super::wrap::wrapped;

/// Returns `text` as it may be shown on a terminal: see [`escaped`].
pub fn printable(text: &str, keep: fn(char) -> bool) -> String {
    escaped(text, keep).into_owned()
}

/// Returns the command of this process, as a shell reads it.
pub fn command() -> String {
    let mut arguments: Vec<String> =
        std::env::args_os().map(|argument| quoted(&argument.to_string_lossy())).collect();
    if let Some(program) = arguments.first_mut() {
        *program = env!("CARGO_BIN_NAME").to_owned();
    }
    arguments.join(" ")
}

/// Quotes `argument` as one word of a shell.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

/// A destination of output: a terminal, or whatever else takes lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Screen {
    /// Number of columns; `None` if it is no terminal.
    pub width: Option<usize>,
    /// Whether colours are wanted.
    pub colours: bool,
}

impl Screen {
    /// Returns the screen of standard output.
    pub fn stdout(no_color: bool) -> Self {
        Screen::of(&Term::stdout(), !no_color && has_colours(&io::stdout()))
    }

    /// Returns the screen of standard error.
    pub fn stderr(no_color: bool) -> Self {
        Screen::of(&Term::stderr(), !no_color && has_colours(&io::stderr()))
    }

    fn of(stream: &Term, colours: bool) -> Self {
        let size = stream.size_checked().filter(|_| stream.features().is_attended());
        Screen { width: size.map(|(_, columns)| columns.into()), colours }
    }

    /// Returns `text` in the colour of `tone`, broken into several lines if it is too long for
    /// one; all but the first are indented.
    pub fn line(&self, tone: Tone, text: &str) -> String {
        self.coloured(tone, &self.wrapped(text, GOES_ON))
    }

    /// Returns `head` and `text` like [`Self::line`], with colour in `head` only, and further
    /// lines indented by `indent`.
    pub fn headed(&self, tone: Tone, head: &str, text: &str, indent: usize) -> String {
        let lines = self.wrapped(&format!("{head} {text}"), indent);
        match lines.split_at_checked(head.len()) {
            Some((head, rest)) => self.coloured(tone, head) + rest,
            None => lines,
        }
    }

    fn wrapped(&self, text: &str, indent: usize) -> String {
        self.width.map_or_else(|| text.to_owned(), |width| wrapped(text, width, indent))
    }

    /// Returns `text` in the colour of `tone`.
    pub fn coloured(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.colours => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::NotRun => "1;33",
            Tone::NotVerified | Tone::Bad => "1;31",
            _ => return text.to_owned(),
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Number of columns by which the further lines of a long line are indented.
pub const GOES_ON: usize = 2;

/// Whether colours may be used on `stream`: <https://no-color.org>.
fn has_colours(stream: &impl IsTerminal) -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !forbidden
}

/// Prints the progress in lines for programs.
pub fn progress_in_lines(progress: Progress) {
    stage::note(progress);
    let numbers = match progress {
        Progress::Proving { done, all } => format!(" {done}/{all}"),
        _ => String::new(),
    };
    let _ = writeln!(io::stderr(), "progress: {}{numbers}", stage::stage());
}

/// Shows the progress as a bar on a terminal, if the work takes more than a second.
pub fn progress(progress: Progress) {
    stage::note(progress);
    let bar = bar();
    match progress {
        Progress::Proving { done, all } => {
            bar.set_style(style("{msg} {wide_bar} {pos}/{len}"));
            bar.set_message("fusing and proving");
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }
        _ => {
            bar.set_style(style("{spinner} {msg}, {elapsed}"));
            bar.set_message(stage::stage());
        }
    }
}

/// Removes the progress bar.
pub fn progress_ends() {
    if let Some(bar) = BAR.get() {
        bar.finish_and_clear();
    }
}

static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// The progress bar, which appears after a second, whether or not there is progress until then.
fn bar() -> &'static ProgressBar {
    BAR.get_or_init(|| {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.enable_steady_tick(Duration::from_millis(200));
        let later = bar.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(1));
            if !later.is_finished() {
                later.set_draw_target(ProgressDrawTarget::stderr());
            }
        });
        bar
    })
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_the_terminal_does() {
        let narrow = Screen { width: Some(16), colours: false };
        let coloured = Screen { colours: true, ..narrow };
        let piped = Screen::default();
        let text = "  conv1: read by others too";
        for (screen, expected) in [
            (piped, text),
            (narrow, "  conv1: read by\n    others too"),
            (coloured, "\x1b[33m  conv1: read by\n    others too\x1b[0m"),
        ] {
            assert_eq!(screen.line(Tone::Warning, text), expected);
        }
        for (screen, expected) in [
            (piped, "failed a.onnx: no model"),
            (narrow, "failed a.onnx:\n       no model"),
            (coloured, "\x1b[1;31mfailed\x1b[0m a.onnx:\n       no model"),
        ] {
            assert_eq!(screen.headed(Tone::Bad, "failed", "a.onnx: no model", 7), expected);
        }
    }

    #[test]
    fn an_argument_is_one_word_of_a_shell() {
        for (argument, expected) in [
            ("fixtures/a.onnx", "fixtures/a.onnx"),
            ("--input-shape=x=1,3", "--input-shape=x=1,3"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quoted(argument), expected);
        }
    }
}
