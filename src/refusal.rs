//! The reasons why something is left alone, in one list; [`help`] says what helps against each.
//!
//! Where an option of the caller decides, the reason names it as a [`Setting`].
//!
//! Knows what can prevent a fusion, not where that is found or which flag would help.

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
    /// A custom operator, whatever it is called.
    #[error("operator {0} is not in the ONNX standard")]
    Foreign(String),
    /// The node contradicts the operator's definition.
    #[error("{0}")]
    Malformed(&'static str),
    /// The operator is affine in general, but this node cannot be read as a convolution.
    #[error("{0}")]
    Unrepresentable(&'static str),
    /// The node is in training mode and is not converted.
    #[error("it stays in training mode: {0}")]
    Training(&'static str),
    /// The node is in training mode and is not converted, as the caller asked.
    #[error("it stays in training mode because of {}", Setting::KeepTraining)]
    KeptTraining,
    /// A norm in training mode whose statistics were never trained.
    #[error(
        "it stays in training mode: its stored means are all 0 and its variances all 1, as \
         before any training ({} uses them all the same)",
        Setting::ConvertTraining
    )]
    Untrained,
    /// A limit of what is tried or followed, in words.
    #[error("{0}")]
    Limit(&'static str),
    /// A weight or statistic is computed from constants, beyond a limit.
    #[error("`{tensor}` is computed from constants, and not evaluated: {limit}")]
    Beyond {
        /// The weight or statistic.
        tensor: String,
        /// The limit that is met.
        limit: &'static str,
    },
    /// A weight or statistic is computed from constants by an operator that is not evaluated.
    #[error("`{tensor}` is computed from constants by {operator}, which is not evaluated")]
    NotEvaluated {
        /// The weight or statistic.
        tensor: String,
        /// The operator that is not evaluated.
        operator: String,
    },
    /// A weight or statistic is computed at run time.
    #[error("`{0}` is not constant")]
    NotConstant(String),
    /// A weight is stored in few bits: fused, it would have to be quantized anew.
    #[error("`{0}` is quantized: fuse the float model, then quantize")]
    Quantized(String),
    /// A weight may be replaced by a caller of the model, and such weights are kept.
    #[error(
        "`{tensor}` is a graph input too, so a caller may override it (kept because of {setting})",
        tensor = .0,
        setting = Setting::KeepOverridable
    )]
    Overridable(String),
    /// Something depends on a size that the file does not fix.
    #[error("{0} is not known; the file leaves it open")]
    Open(String),
    /// Something depends on a size that cannot be inferred.
    #[error("{0} is not known; it cannot be inferred")]
    NotInferable(String),
    /// Something depends on a size that is not inferred because a limit is met.
    #[error("{what} is not inferred: {limit}")]
    NotInferred {
        /// The size, and what depends on it.
        what: String,
        /// The limit that is met.
        limit: &'static str,
    },
    /// A constant varies along other axes than the channels.
    #[error("constant `{constant}` of shape {dims:?} is not one number per channel")]
    NotPerChannel {
        /// The constant.
        constant: String,
        /// Its shape.
        dims: Vec<usize>,
    },
    /// Maps that would have to become one are not a single convolution.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A vector has the wrong length.
    #[error("`{constant}` is not a vector of {length} floats")]
    WrongLength {
        /// The vector.
        constant: String,
        /// The length that is needed.
        length: usize,
    },
}

/// Why something is left alone.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Reason {
    /// The branches do not read the same feature map.
    #[error("the branches read different tensors, `{left}` and `{right}`")]
    DifferentInputs {
        /// The root of one branch.
        left: String,
        /// The root of the other branch.
        right: String,
    },
    /// The windows or channels of the branches do not fit.
    #[error(transparent)]
    Geometry(#[from] Refusal),
    /// A node on the way is not linear.
    #[error("node `{node}`: {why}")]
    NotLinear {
        /// The node.
        node: String,
        /// Why it is not linear.
        why: NotLinear,
    },
    /// The merge is legal, but does not pay.
    #[error("as one convolution it would need {after} weights instead of {before}")]
    Dearer {
        /// Number of weights before the merge.
        before: f64,
        /// Number of weights of the result.
        after: f64,
    },
    /// The merge would be right only for other sizes than the known ones.
    #[error("it could be merged only where {0}")]
    OutOfRange(String),
    /// The branch is read elsewhere too, so merging it would not make its nodes superfluous.
    #[error(
        "branch `{0}` is read elsewhere too and must be kept, so merging it would cost more than it saves"
    )]
    ReadElsewhere(String),
    /// The kernel is read by other nodes too.
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
    /// The fused weights cannot be represented in the model's type.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A limit of what is followed or tried, in words.
    #[error("{0}")]
    Limit(&'static str),
    /// A branch stays apart from its kernel, and without it the merge does not pay.
    #[error(
        "{branch} stays apart: in one kernel, int8 weights would be {} (because of {})",
        less_exact(*together, *apart), Setting::KeepIdentity
    )]
    KeptApart {
        /// The branch.
        branch: String,
        /// The signal-to-noise ratio of the int8 weights of the kernel with the branch, in dB;
        /// `None` if they are exact.
        together: Option<f64>,
        /// The same if the two stay apart.
        apart: Option<f64>,
    },
    /// The fused weights could not be computed or proved.
    #[error("{why}")]
    Unproved {
        /// Why not.
        why: String,
        /// The setting that allows more, if a limit was met.
        setting: Option<Setting>,
    },
    /// There is no convolution on either side that can absorb the node.
    #[error("cannot be folded into a convolution: {before} precedes it, and {behind} follows it")]
    Between {
        /// The producer of its input.
        before: Neighbour,
        /// The reader of its output.
        behind: Neighbour,
    },
    /// A call of a local function that cannot be inlined.
    #[error("{0}")]
    Call(String),
    /// The code that trains the model refers to its tensors by name.
    #[error(
        "the model has training information (`training_info`), which names weights and tensors \
         that would change"
    )]
    TrainingInfo,
    /// The user asked to skip it.
    #[error("left alone because of {}", Setting::Skip)]
    Skipped,
}

/// Says how much less exact weights are whose signal-to-noise ratio is `after` dB instead of
/// `before`; `None` stands for exact weights.
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
    /// A tensor that no node makes.
    #[error("an input")]
    Input,
    /// A graph output that no node reads.
    #[error("an output")]
    Output,
    /// An operator that is not a convolution.
    #[error("{0}")]
    Operator(String),
    /// A sum, not all operands of which are convolutions.
    #[error("a sum with a summand that is no convolution")]
    Sum,
    /// A sum that other nodes read too, as it is.
    #[error("a sum that other nodes read too")]
    SharedSum,
    /// A sum of which the node is an operand.
    #[error("a sum")]
    Summand,
    /// Several readers, each of which would have to absorb the node.
    #[error("more than one node")]
    Readers,
    /// A convolution that the node cannot become a part of.
    #[error("a convolution ({0})")]
    Refusing(Refusal),
    /// A convolution that other nodes read too, as it is.
    #[error("a convolution that other nodes read too")]
    Shared,
    /// A convolution that could absorb the node, but would be no cheaper.
    #[error("a convolution that would be no cheaper with it")]
    Dear,
}

impl NotLinear {
    /// Returns the caller's setting that the message names, if it names one.
    pub fn setting(&self) -> Option<Setting> {
        match self {
            NotLinear::Overridable(_) => Some(Setting::KeepOverridable),
            NotLinear::KeptTraining => Some(Setting::KeepTraining),
            NotLinear::Untrained => Some(Setting::ConvertTraining),
            _ => None,
        }
    }

    /// Checks whether knowing a size that the file leaves open may change this.
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
    /// Returns the caller's setting that the message names, if it names one.
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

    /// Checks whether knowing a size that the file leaves open may change this.
    pub fn is_open(&self) -> bool {
        matches!(self, Reason::NotLinear { why, .. } if why.is_open())
    }

    /// Returns the message for several places at once: the same for all reasons that differ only
    /// in names and numbers.
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

/// The kind of thing that is left alone, in a word.
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
    /// A planned block.
    #[error("block")]
    Block,
    /// Anything else.
    #[error("node")]
    Node,
}

/// A place that looks fusable and is left alone.
#[derive(Debug, Clone, PartialEq)]
pub struct NearMiss {
    /// The kind of thing that is left alone.
    pub subject: Subject,
    /// The name of the node, of the node where the branches meet, or of the block.
    pub node: String,
    /// Why it is left alone.
    pub reason: Reason,
}

/// Why fused weights cannot be represented in an element type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A weight is too large, or not a number.
    #[error("a fused weight would not be finite in {0}")]
    NotFinite(Float),
    /// All weights of a filter are too small.
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
    /// The shift in front of a kernel is out of proportion to the kernel's input.
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
    /// The values that fill a border differ from those that the fused weights would give there.
    #[error("its border is filled with values that differ from those of the operation before it")]
    Border,
}
