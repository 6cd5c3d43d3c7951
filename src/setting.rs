//! The caller's choices, as far as a message names one.
//!
//! A message says what is meant in words of the library. Whoever offers these choices (a
//! command line has flags) puts them in words of its own with [`told`].
//!
//! Knows choices, and no flag.

use std::fmt;

/// A choice of the caller that decides about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setting {
    /// The shape of an input that the file leaves open.
    InputShape {
        /// The input's name.
        input: String,
        /// A likely shape, as in `1,3,224,224`.
        example: String,
    },
    /// What a caller of the model may override is kept.
    KeepOverridable,
    /// Nodes in training mode stay in it.
    KeepTraining,
    /// Nodes in training mode use their statistics, whatever these are.
    ConvertTraining,
    /// Blocks of these names are left alone.
    Skip,
    /// How long verification may take.
    TimeLimit,
    /// How many bytes the tensors of a run may take.
    MemoryLimit,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::InputShape { input, example } => {
                write!(f, "a shape for the input `{input}`, such as {example}")
            }
            Setting::KeepOverridable => f.write_str("that is kept, as asked for"),
            Setting::KeepTraining => f.write_str("as asked for"),
            Setting::ConvertTraining => f.write_str("converting all such nodes"),
            Setting::Skip => f.write_str("its name, as asked for"),
            Setting::TimeLimit => f.write_str("a longer time limit"),
            Setting::MemoryLimit => f.write_str("a higher memory limit"),
        }
    }
}

/// `message`, in which `words` stand for the setting that it names.
pub fn told(message: &str, setting: &Setting, words: &dyn Fn(&Setting) -> String) -> String {
    // A stranger's names stand before it, so it is the last of its kind.
    match message.rsplit_once(&setting.to_string()) {
        Some((before, after)) => format!("{before}{}{after}", words(setting)),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::{NotLinear, Reason};

    #[test]
    fn a_setting_is_told_in_words_of_the_caller() {
        let words = |setting: &Setting| match setting {
            Setting::InputShape { input, example } => format!("--input-shape {input}={example}"),
            Setting::KeepOverridable => "--keep-overridable".to_owned(),
            Setting::KeepTraining => "--training-mode keep".to_owned(),
            Setting::ConvertTraining => "--training-mode convert".to_owned(),
            Setting::Skip => "--skip".to_owned(),
            Setting::TimeLimit => "--verify-timeout".to_owned(),
            Setting::MemoryLimit => "--verify-memory".to_owned(),
        };
        let in_flags = |reason: &Reason| match reason.setting() {
            Some(setting) => told(&reason.to_string(), setting, &words),
            None => reason.to_string(),
        };
        let shape = Setting::InputShape { input: "x".into(), example: "1,3,224,224".into() };
        let unknown = NotLinear::Unknown { what: "a size".into(), remedy: shape };
        for (why, expected) in [
            (unknown, "a size is not known; fix it with --input-shape x=1,3,224,224"),
            (
                NotLinear::Overridable("w as asked for".into()),
                "`w as asked for` is a graph input too, so a caller may override it \
                 (--keep-overridable)",
            ),
            (NotLinear::KeptTraining, "it stays in training mode: --training-mode keep"),
            (
                NotLinear::Untrained,
                "it stays in training mode: its stored means are all 0 and its variances all 1, \
                 as before any training (--training-mode convert uses them all the same)",
            ),
            (NotLinear::NotConstant("w".into()), "`w` is not constant"),
        ] {
            let reason = Reason::NotLinear { node: "n".into(), why };
            assert_eq!(in_flags(&reason), format!("node `n`: {expected}"));
        }
        assert_eq!(in_flags(&Reason::Skipped), "left alone because of --skip");
    }
}
