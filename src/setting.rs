//! The caller's choices that a message can name.
//!
//! A message names a choice in the words of the library. A front end that offers these choices in
//! another way (a command line has flags) substitutes its own words with [`told`].
//!
//! Knows choices; no flags.

use std::fmt;

/// A choice of the caller that decides what is done with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setting {
    /// The shape of an input whose dimensions the file leaves open.
    InputShape {
        /// The input's name.
        input: String,
        /// A likely shape, as in `1,3,224,224`.
        example: String,
    },
    /// Initializers that a caller of the model may override are kept.
    KeepOverridable,
    /// The fraction of its parameters by which the model may grow through copies of kernels.
    Growth {
        /// The fraction that would suffice, in thousandths.
        thousandths: u64,
    },
    /// Identity branches stay apart from kernels.
    KeepIdentity,
    /// Branches stay apart from kernels whose int8 weights they would make less exact.
    KeepDominant,
    /// Nodes in training mode are left in training mode.
    KeepTraining,
    /// Nodes in training mode are converted with their stored statistics, whatever these are.
    ConvertTraining,
    /// Blocks with given names are left alone.
    Skip,
    /// The time limit of verification.
    TimeLimit,
    /// The limit on the bytes of a run's tensors.
    MemoryLimit,
    /// The option with this name.
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

/// Returns `message` with `words` in place of the text that names `setting`.
pub fn told(message: &str, setting: &Setting, words: &dyn Fn(&Setting) -> String) -> String {
    // Names from the file stand before the setting, so the last occurrence is the setting's.
    match message.rsplit_once(&setting.to_string()) {
        Some((before, after)) => format!("{before}{}{after}", words(setting)),
        None => message.to_owned(),
    }
}
