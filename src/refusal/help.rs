//! What helps against each reason: the one list, from which `docs/limits.md` is generated.
//!
//! Knows reasons and the names of options; does not know how a caller writes these.

use crate::affine::Refusal;
use crate::onnx::float::Float;
use crate::refusal::{Neighbour, NotLinear, Reason, Unfit};

/// The first word of a text that says that nothing helps.
pub const NOTHING: &str = "Nothing";

/// The option that fixes sizes.
pub const SIZES: &str = "input_shape";

/// The options that the texts name.
const OPTIONS: [&str; 6] =
    [SIZES, "growth", "keep_identity", "training_mode", "keep_overridable", "skip"];

/// Returns the option that `help` names, if it names one.
pub fn option(help: &str) -> Option<&'static str> {
    OPTIONS.into_iter().find(|name| help.contains(&format!("`{name}")))
}

/// Says in a sentence what helps against `reason`. An option that helps is called by its name in
/// the options, which [`option`] finds.
pub fn help(reason: &Reason) -> &'static str {
    match reason {
        Reason::DifferentInputs { .. } => {
            "Nothing, if that is intended. Otherwise, look for a copy of the input (a Cast, a Transpose) in one branch."
        }
        Reason::Geometry(refusal) => of_refusal(refusal),
        Reason::NotLinear { why, .. } => of_node(why),
        Reason::Dearer { .. } => "Nothing: the model is better as it is.",
        Reason::OutOfRange(_) => "Give the size that is used at inference with `input_shape`.",
        Reason::ReadElsewhere(_) => {
            "Remove the other reader, such as an extra graph output, at export."
        }
        Reason::SharedKernel { .. } => {
            "Allow the copies with `growth` and the fraction that the report names."
        }
        Reason::Unfit(unfit) => of_type(unfit),
        Reason::Limit(_) => "Such a model is unusual: please report it.",
        Reason::KeptApart { .. } => {
            "If the model will not be quantized, use `keep_identity never`."
        }
        Reason::Unproved { setting: Some(_), .. } => "If the report names a limit, raise it.",
        Reason::Unproved { setting: None, .. } => "Nothing: what is not proved is not fused.",
        Reason::Between { before, behind } => {
            let sides = [before, behind].map(of_neighbour);
            let helpful = sides.into_iter().find(|help| !help.starts_with(NOTHING));
            helpful.unwrap_or(
                "Nothing, if what stands there is intended (a ReLU before a norm). Otherwise, place it directly after a convolution, or directly before one without padding.",
            )
        }
        Reason::Call(_) => "Inline the function (`onnx.inliner`), or export without functions.",
        Reason::TrainingInfo => {
            "If the model will not be trained any more, remove it (`del model.training_info[:]`)."
        }
        Reason::Skipped => "Leave out `skip`.",
    }
}

fn of_node(why: &NotLinear) -> &'static str {
    match why {
        NotLinear::Operator(_) => "Nothing: the result would not be the same.",
        NotLinear::Foreign(_) => "Export with operators of ONNX.",
        NotLinear::Malformed(_) => "Run `onnx.checker` on the file, and export the model again.",
        NotLinear::Unrepresentable(_) => "Nothing, in most cases: such nodes are usually intended.",
        NotLinear::Training(_) => "Export with `model.eval()`.",
        NotLinear::KeptTraining => "Leave `training_mode` at `auto`.",
        NotLinear::Untrained => {
            "Export with `model.eval()` after training; or use `training_mode convert`."
        }
        NotLinear::Limit(_) => "Run a simplifier (onnxsim, OnnxSlim) before this tool.",
        NotLinear::Beyond { .. } | NotLinear::NotEvaluated { .. } => {
            "Fold constants first, with a simplifier (onnxsim, OnnxSlim)."
        }
        NotLinear::NotConstant(_) => {
            "Nothing, if that is intended (a dynamic convolution). Otherwise, fold constants first, with a simplifier (onnxsim, OnnxSlim)."
        }
        NotLinear::Quantized(_) => "Nothing else.",
        NotLinear::Overridable(_) => "Leave out `keep_overridable`.",
        NotLinear::Open(_) => {
            "Fix the size with `input_shape`; if one input decides it, the report names that input."
        }
        NotLinear::NotInferable(_) | NotLinear::NotInferred { .. } => {
            "Run ONNX's shape inference, or export with fixed sizes."
        }
        NotLinear::NotPerChannel { .. } => {
            "If it was meant for the channels, give it the shape [C,1,1]."
        }
        NotLinear::Refused(refusal) => of_refusal(refusal),
        NotLinear::WrongLength { .. } => "Run `onnx.checker` on the file.",
    }
}

fn of_neighbour(beside: &Neighbour) -> &'static str {
    match beside {
        Neighbour::Input
        | Neighbour::Output
        | Neighbour::Sum
        | Neighbour::Summand
        | Neighbour::Readers
        | Neighbour::Shared
        | Neighbour::Dear => "Nothing.",
        Neighbour::Operator(_) => "Nothing: the norm does not commute with it.",
        Neighbour::SharedSum => "Nothing, if the network is meant to be a pre-activation network.",
        Neighbour::Refusing(refusal) => of_refusal(refusal),
    }
}

fn of_refusal(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Strides(..)
        | Refusal::Channels(..)
        | Refusal::Ranks
        | Refusal::View
        | Refusal::Kinds
        | Refusal::Outgrown(_)
        | Refusal::Vanishes
        | Refusal::Repeated => "Nothing: they are not one convolution.",
        Refusal::Counts { .. } => {
            "Check the paddings: they should be ⌊d/2⌋ on the long axes. Where sizes are open, try `input_shape`."
        }
        Refusal::Unplaced(_) => "Give the size that is used at inference with `input_shape`.",
        Refusal::Border(_) => "Pad only once, before the first of the two operations.",
        Refusal::BiasAtBorder(_) => {
            "Fill the border with the bias, as DBB and ECBSR do, or train without that bias."
        }
        Refusal::Borders(_) => "Use the same padding in all branches.",
        Refusal::Axes => "Export the whole block in one layout.",
        Refusal::Weights(_) | Refusal::Products(_) => {
            "Nothing: here, two kernels are cheaper than one."
        }
        Refusal::TooLarge(_) => "Run `onnx.checker` on the file.",
    }
}

fn of_type(unfit: &Unfit) -> &'static str {
    match unfit {
        Unfit::NotFinite(Float::F16 | Float::Bf16) | Unfit::Imprecise { .. } => {
            "Fuse the float32 model, then convert it to the smaller type."
        }
        Unfit::NotFinite(Float::F32 | Float::F64) => {
            "Nothing, unless a weight or statistic of the block is wrong."
        }
        Unfit::Disproportionate { .. } => "Nothing: the scale stays in front of the kernel.",
        Unfit::Border => {
            "Fill the border with the bias of the operation inside it, computed in the same way as that bias."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_something_helps_speaks_for_both() {
        let relu = || Neighbour::Operator("Relu".to_owned());
        let padded = || Neighbour::Refusing(Refusal::Border(0));
        for (before, behind, expected) in [
            (relu(), padded(), "Pad only once, before the first of the two operations."),
            (padded(), relu(), "Pad only once, before the first of the two operations."),
            (
                relu(),
                Neighbour::Output,
                "Nothing, if what stands there is intended (a ReLU before a norm). Otherwise, place it directly after a convolution, or directly before one without padding.",
            ),
        ] {
            assert_eq!(help(&Reason::Between { before, behind }), expected);
        }
    }

    #[test]
    fn the_option_that_helps_is_found() {
        for (reason, expected) in [
            (Reason::Skipped, Some("skip")),
            (Reason::OutOfRange(String::new()), Some("input_shape")),
            (Reason::Geometry(Refusal::Kinds), None),
        ] {
            assert_eq!(option(help(&reason)), expected);
        }
    }
}
