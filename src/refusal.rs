//! Why something is left alone: the one list.
//!
//! A message says what is meant in words of the library. Where a choice of the caller decides,
//! the reason names it as a [`Setting`], so that whoever offers these choices can put it in
//! words of its own ([`Reason::told`]).

use std::fmt;

use crate::affine::Refusal;
use crate::onnx::float::Float;

/// A choice of the caller that decides about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        }
    }
}

/// Why a node is not an affine map or a sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLinear {
    /// The operator is not affine.
    #[error("{0} is not linear")]
    Operator(String),
    /// An operator of somebody's own, whatever it is called.
    #[error("operator {0} is not one of the ONNX standard")]
    Foreign(String),
    /// A node that contradicts the operator's definition.
    #[error("{0}")]
    Malformed(&'static str),
    /// Affine, but no convolution.
    #[error("{0}")]
    Unrepresentable(&'static str),
    /// A node in training mode that is not converted.
    #[error("it stays in training mode: {0}")]
    Training(&'static str),
    /// A node in training mode that is not converted, as asked for.
    #[error("it stays in training mode: {}", Setting::KeepTraining)]
    KeptTraining,
    /// A norm in training mode whose statistics were never trained.
    #[error(
        "it stays in training mode: its stored means are all 0 and its variances all 1, as \
         before any training ({} uses them all the same)",
        Setting::ConvertTraining
    )]
    Untrained,
    /// A limit of what is tried or followed; it is told by its name.
    #[error("{0}")]
    Limit(&'static str),
    /// A weight or statistic that is computed from constants, beyond a limit.
    #[error("`{tensor}` is computed from constants, and not evaluated: {limit}")]
    Beyond {
        /// The weight or statistic.
        tensor: String,
        /// What is met.
        limit: &'static str,
    },
    /// A weight or statistic that is computed at run time.
    #[error("`{0}` is not constant")]
    NotConstant(String),
    /// A weight that a caller of the model may replace, where such ones are kept.
    #[error(
        "`{tensor}` is a graph input too, so a caller may override it ({setting})",
        tensor = .0,
        setting = Setting::KeepOverridable
    )]
    Overridable(String),
    /// Something depends on a size that the file does not fix.
    #[error("{what} is not known; fix it with {remedy}")]
    Unknown {
        /// The size, and what depends on it.
        what: String,
        /// What fixes it.
        remedy: Setting,
    },
    /// Something depends on a size that nobody can tell.
    #[error("{0} is not known; it cannot be inferred")]
    NotInferable(String),
    /// Something depends on a size that is not inferred, because a limit is met.
    #[error("{what} is not inferred: {limit}")]
    NotInferred {
        /// The size, and what depends on it.
        what: String,
        /// What is met.
        limit: &'static str,
    },
    /// A constant that varies along other axes than the channels.
    #[error("constant `{constant}` of shape {dims:?} is not one number per channel")]
    NotPerChannel {
        /// The constant.
        constant: String,
        /// Its shape.
        dims: Vec<usize>,
    },
    /// What would be one map is no convolution.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A vector of the wrong length.
    #[error("`{constant}` is not a vector of {length} floats")]
    WrongLength {
        /// The vector.
        constant: String,
        /// What is needed.
        length: usize,
    },
}

/// Why branches were not merged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Reason {
    /// They do not see the same feature map.
    #[error("the branches read different tensors, `{left}` and `{right}`")]
    DifferentInputs {
        /// Root of one.
        left: String,
        /// Root of the other.
        right: String,
    },
    /// Their windows or channels do not fit.
    #[error(transparent)]
    Geometry(#[from] Refusal),
    /// Something on the way is not linear.
    #[error("node `{node}`: {why}")]
    NotLinear {
        /// The node.
        node: String,
        /// Why it is not.
        why: NotLinear,
    },
    /// Legal, but not profitable.
    #[error("as one convolution it would need {after} weights instead of {before}")]
    Dearer {
        /// Weights of what is there.
        before: f64,
        /// Weights of the result.
        after: f64,
    },
    /// It would be right for other sizes only.
    #[error("it could be merged only where {0}")]
    OutOfRange(String),
    /// Merging it would not free it.
    #[error(
        "branch `{0}` is read elsewhere too and must be kept, so merging it would cost more than it saves"
    )]
    ReadElsewhere(String),
    /// The fused weights would not be what they are in the model's type.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// More than is followed or tried; the limit by its name.
    #[error("{0}")]
    Limit(&'static str),
    /// The fused weights could not be computed or proved.
    #[error("{0}")]
    Unproved(String),
    /// A call of a local function that cannot be inlined.
    #[error("{0}")]
    Call(String),
    /// The user said so.
    #[error("left alone because of {}", Setting::Skip)]
    Skipped,
}

impl NotLinear {
    /// The choice of the caller that the message names.
    pub fn setting(&self) -> Option<&Setting> {
        match self {
            NotLinear::Unknown { remedy, .. } => Some(remedy),
            NotLinear::Overridable(_) => Some(&Setting::KeepOverridable),
            NotLinear::KeptTraining => Some(&Setting::KeepTraining),
            NotLinear::Untrained => Some(&Setting::ConvertTraining),
            _ => None,
        }
    }
}

impl Reason {
    /// The choice of the caller that the message names.
    pub fn setting(&self) -> Option<&Setting> {
        match self {
            Reason::NotLinear { why, .. } => why.setting(),
            Reason::Skipped => Some(&Setting::Skip),
            _ => None,
        }
    }

    /// The message, in which `words` stand for the setting that it names.
    pub fn told(&self, words: &dyn Fn(&Setting) -> String) -> String {
        let message = self.to_string();
        let parts = self.setting().and_then(|setting| {
            // A stranger's names stand before it, so it is the last of its kind.
            let (before, after) = message.rsplit_once(&setting.to_string())?;
            Some(format!("{before}{}{after}", words(setting)))
        });
        parts.unwrap_or(message)
    }
}

/// A place that looks fusable and is left alone.
#[derive(Debug, Clone, PartialEq)]
pub struct NearMiss {
    /// The node where the branches meet.
    pub node: String,
    /// Why it is left alone.
    pub reason: Reason,
}

/// Why fused weights do not exist in a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// One is too large, or no number at all.
    #[error("a fused weight would not be finite in {0}")]
    NotFinite(Float),
    /// All of a filter are too small.
    #[error(
        "the fused weights of channel {channel} would lose their precision: the largest is below \
         the smallest normal number of {float}"
    )]
    Imprecise {
        /// The type.
        float: Float,
        /// The output channel.
        channel: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_told_in_words_of_the_caller() {
        let words = |setting: &Setting| match setting {
            Setting::InputShape { input, example } => format!("--input-shape {input}={example}"),
            Setting::KeepOverridable => "--keep-overridable".to_owned(),
            Setting::KeepTraining => "--training-mode keep".to_owned(),
            Setting::ConvertTraining => "--training-mode convert".to_owned(),
            Setting::Skip => "--skip".to_owned(),
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
            assert_eq!(reason.told(&words), format!("node `n`: {expected}"));
        }
        assert_eq!(Reason::Skipped.told(&words), "left alone because of --skip");
    }
}
