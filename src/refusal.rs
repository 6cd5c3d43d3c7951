//! Why something is left alone: the one list; and below it, what [`help`]s.
//!
//! Where a choice of the caller decides, the reason names it as a [`Setting`].
//!
//! Knows what can be in the way; neither where that is found nor which flag would help.

pub mod help;

use crate::affine::Refusal;
use crate::onnx::float::Float;
use crate::setting::Setting;

/// Why a node is not an affine map or a sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLinear {
    /// The operator is not affine.
    #[error("{0} is not linear")]
    Operator(String),
    /// An operator of somebody's own, whatever it is called.
    #[error("operator {0} is not in the ONNX standard")]
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
    #[error("it stays in training mode because of {}", Setting::KeepTraining)]
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
    /// A weight or statistic that is computed from constants, by what is not evaluated here.
    #[error("`{tensor}` is computed from constants by {operator}, which is not evaluated")]
    NotEvaluated {
        /// The weight or statistic.
        tensor: String,
        /// What has no value.
        operator: String,
    },
    /// A weight or statistic that is computed at run time.
    #[error("`{0}` is not constant")]
    NotConstant(String),
    /// A weight that is stored in few bits: fused, it would have to be quantized anew.
    #[error("`{0}` is quantized: fuse the float model, then quantize")]
    Quantized(String),
    /// A weight that a caller of the model may replace, where such ones are kept.
    #[error(
        "`{tensor}` is a graph input too, so a caller may override it (kept because of {setting})",
        tensor = .0,
        setting = Setting::KeepOverridable
    )]
    Overridable(String),
    /// Something depends on a size that the file does not fix.
    #[error("{0} is not known; the file leaves it open")]
    Open(String),
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
    /// Its kernel is not its own.
    #[error(
        "its kernel `{kernel}` is read by `{other}` too, and copies of such kernels would make \
         the model larger ({} allows them)",
        Setting::Growth { thousandths: *thousandths }
    )]
    SharedKernel {
        /// The kernel.
        kernel: String,
        /// Another node that reads it.
        other: String,
        /// By how many thousandths of its parameters the model would grow.
        thousandths: u64,
    },
    /// The fused weights would not be what they are in the model's type.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// More than is followed or tried; the limit by its name.
    #[error("{0}")]
    Limit(&'static str),
    /// It is written as it would be kept.
    #[error(
        "{branch} stays apart: in one kernel, int8 weights would be {} (because of {})",
        less_exact(*together, *apart), Setting::KeepIdentity
    )]
    KeptApart {
        /// The branch.
        branch: String,
        /// The signal-to-noise ratio of the kernel's int8 weights with it, in dB.
        together: Option<f64>,
        /// The same without it.
        apart: Option<f64>,
    },
    /// The fused weights could not be computed or proved.
    #[error("{why}")]
    Unproved {
        /// Why not.
        why: String,
        /// What allows more, if a limit was met.
        setting: Option<Setting>,
    },
    /// There is no convolution on either side that takes it.
    #[error("cannot be folded into a convolution: {before} precedes it, and {behind} follows it")]
    Between {
        /// What makes what it reads.
        before: Neighbour,
        /// What reads what it makes.
        behind: Neighbour,
    },
    /// A call of a local function that cannot be inlined.
    #[error("{0}")]
    Call(String),
    /// What trains the model knows its tensors by their names.
    #[error(
        "the model has training information (`training_info`), which names weights and tensors \
         that would change"
    )]
    TrainingInfo,
    /// The user said so.
    #[error("left alone because of {}", Setting::Skip)]
    Skipped,
}

/// How much less exact weights are whose signal-to-noise ratio is `after` dB instead of `before`.
pub fn less_exact(after: Option<f64>, before: Option<f64>) -> String {
    match (after, before) {
        (Some(after), Some(before)) => format!("at {after:.1} dB instead of {before:.1} dB"),
        (Some(after), None) => format!("at {after:.1} dB instead of exact"),
        (None, _) => "as exact".to_owned(),
    }
}

/// What stands beside a norm, scale or shift that stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Neighbour {
    /// Nothing makes what it reads.
    #[error("an input")]
    Input,
    /// Nothing else has to read what it makes.
    #[error("an output")]
    Output,
    /// An operator that is no convolution.
    #[error("{0}")]
    Operator(String),
    /// A sum, not all of whose summands are convolutions.
    #[error("a sum with a summand that is no convolution")]
    Sum,
    /// A sum that others read, too, as it is.
    #[error("a sum that other nodes read too")]
    SharedSum,
    /// A sum of which it is a summand.
    #[error("a sum")]
    Summand,
    /// Several readers that it would have to go into, one by one.
    #[error("more than one node")]
    Readers,
    /// A convolution of which it cannot be a part.
    #[error("a convolution ({0})")]
    Refusing(Refusal),
    /// A convolution that others read, too, as it is.
    #[error("a convolution that other nodes read too")]
    Shared,
    /// A convolution that would take it, at a price.
    #[error("a convolution that would be no cheaper with it")]
    Dear,
}

impl NotLinear {
    /// The choice of the caller that the message names.
    pub fn setting(&self) -> Option<Setting> {
        match self {
            NotLinear::Overridable(_) => Some(Setting::KeepOverridable),
            NotLinear::KeptTraining => Some(Setting::KeepTraining),
            NotLinear::Untrained => Some(Setting::ConvertTraining),
            _ => None,
        }
    }

    /// Whether a size that the file leaves open, once it is known, may change that.
    fn is_open(&self) -> bool {
        matches!(self, NotLinear::Open(_))
    }

    /// See [`Reason::in_common`].
    fn in_common(&self) -> String {
        match self {
            NotLinear::Beyond { limit, .. } => {
                format!("a weight is computed from constants, and not evaluated: {limit}")
            }
            NotLinear::NotConstant(_) => "a weight is not constant".to_owned(),
            NotLinear::Quantized(_) => {
                "a weight is quantized: fuse the float model, then quantize".to_owned()
            }
            NotLinear::Overridable(_) => format!(
                "a weight is a graph input too, so a caller may override it ({})",
                Setting::KeepOverridable
            ),
            NotLinear::Open(_) => {
                "a size on which this depends is not known; the file leaves it open".to_owned()
            }
            NotLinear::NotInferable(_) => {
                "a size on which this depends is not known; it cannot be inferred".to_owned()
            }
            NotLinear::NotInferred { limit, .. } => {
                format!("a size on which this depends is not inferred: {limit}")
            }
            NotLinear::NotPerChannel { .. } => {
                "a constant is not one number per channel".to_owned()
            }
            NotLinear::WrongLength { .. } => {
                "a constant is not a vector of the right length".to_owned()
            }
            _ => self.to_string(),
        }
    }
}

impl Reason {
    /// The choice of the caller that the message names.
    pub fn setting(&self) -> Option<Setting> {
        match self {
            Reason::NotLinear { why, .. } => why.setting(),
            Reason::Unproved { setting, .. } => setting.clone(),
            Reason::SharedKernel { thousandths, .. } => {
                Some(Setting::Growth { thousandths: *thousandths })
            }
            Reason::KeptApart { .. } => Some(Setting::KeepIdentity),
            Reason::Skipped => Some(Setting::Skip),
            _ => None,
        }
    }

    /// Whether a size that the file leaves open, once it is known, may change that.
    pub fn is_open(&self) -> bool {
        matches!(self, Reason::NotLinear { why, .. } if why.is_open())
    }

    /// What it says of several places at once: the same of all that differ in names and counts
    /// alone.
    pub fn in_common(&self) -> String {
        match self {
            Reason::DifferentInputs { .. } => "the branches read different tensors".to_owned(),
            Reason::NotLinear { why, .. } => why.in_common(),
            Reason::Dearer { .. } => "as one convolution it would need more weights".to_owned(),
            Reason::ReadElsewhere(_) => {
                "a branch is read elsewhere too and must be kept, so merging it would cost more \
                 than it saves"
                    .to_owned()
            }
            Reason::SharedKernel { thousandths, .. } => format!(
                "its kernel is read by other nodes too, and copies of such kernels would make the model \
                 larger ({})",
                Setting::Growth { thousandths: *thousandths }
            ),
            Reason::KeptApart { .. } => format!(
                "a branch stays apart: in one kernel, int8 weights would be less exact ({})",
                Setting::KeepIdentity
            ),
            _ => self.to_string(),
        }
    }
}

/// What is left alone, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Subject {
    /// A batch norm.
    #[error("norm")]
    Norm,
    /// A scale per channel, with or without a shift.
    #[error("scale")]
    Scale,
    /// A shift per channel.
    #[error("shift")]
    Shift,
    /// A convolution, or a product with a constant.
    #[error("convolution")]
    Convolution,
    /// A sum.
    #[error("sum")]
    Sum,
    /// What was planned to become one.
    #[error("block")]
    Block,
    /// Anything else.
    #[error("node")]
    Node,
}

/// A place that looks fusable and is left alone.
#[derive(Debug, Clone, PartialEq)]
pub struct NearMiss {
    /// What it is.
    pub subject: Subject,
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
    /// What would be added in front of a kernel is out of proportion to what that reads.
    #[error(
        "divided by its scale, the shift in front of the border would be too large in channel \
         {channel}, or too small for {float}"
    )]
    Disproportionate {
        /// The type.
        float: Float,
        /// The channel.
        channel: usize,
    },
    /// A border that they are to make is another one.
    #[error("its border is filled with values that differ from those of the operation before it")]
    Border,
}
