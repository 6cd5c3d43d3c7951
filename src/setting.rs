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
    /// By which fraction of its parameters the model may grow by copies of kernels.
    Growth {
        /// What would be enough, in thousandths.
        thousandths: u64,
    },
    /// Identities stay apart from kernels.
    KeepIdentity,
    /// Branches stay apart from kernels whose weights they would make less exact.
    KeepDominant,
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
    /// The option of this name.
    Option(&'static str),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::InputShape { input, example } => {
                write!(f, "a shape for the input `{input}`, such as {example}")
            }
            Setting::KeepOverridable => f.write_str("the option that keeps such weights"),
            Setting::Growth { thousandths } => {
                write!(f, "a growth by {}", *thousandths as f64 / 1000.0)
            }
            Setting::KeepIdentity => f.write_str("the option that keeps such branches apart"),
            Setting::KeepDominant => f.write_str("keeping such branches apart"),
            Setting::KeepTraining => f.write_str("the option that keeps such nodes"),
            Setting::ConvertTraining => f.write_str("converting all such nodes"),
            Setting::Skip => f.write_str("its name, as asked for"),
            Setting::TimeLimit => f.write_str("a longer time limit"),
            Setting::Option(name) => f.write_str(name),
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
