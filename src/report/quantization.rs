//! The effect of fusing on a block's int8 weights, and what to do about it.
//!
//! Knows magnitudes; does not know how they were measured, or which flags there are.

use crate::affine::{Comparison, DominantBranch, Int8Weights, branch};
use crate::refusal::less_exact;
use crate::report::BlockReport;
use crate::setting::Setting;

/// The advice that helps any kernel.
pub const ADVICE: &str = "quantize weights per channel, or equalize them across layers first";

impl BlockReport {
    /// Records the `weights` of the convolutions, and a hint if some of them are poor as int8.
    pub fn note_weights(&mut self, weights: Option<Vec<Comparison>>) {
        self.weights = weights;
        let hint = self.poorest().map(|compared| {
            let cause = cause(compared);
            // If the kernel was as poor before, the branch is not the only cause.
            let is_lost = compared.after.int8.is_lost_beside(&compared.before.int8);
            let helps = cause.is_some() && is_lost;
            let setting = helps.then_some(Setting::KeepDominant);
            let helps = setting.as_ref().map(|setting| format!("{setting} helps"));
            let helps = helps.unwrap_or_else(|| ADVICE.to_owned());
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            let poor = poor(&compared.before.int8, &compared.after.int8);
            (format!("{poor}{cause} ({helps})"), setting)
        });
        (self.hint, self.hint_setting) = match hint {
            Some((hint, setting)) => (Some(hint), setting),
            None => (None, None),
        };
    }

    /// Returns the poorest of the convolutions whose weights are poor as int8.
    pub(crate) fn poorest(&self) -> Option<&Comparison> {
        let all = self.weights.iter().flatten();
        let poor = all.filter(|compared| compared.after.int8.is_poor_beside(&compared.before.int8));
        let per_tensor = |compared: &Comparison| compared.after.int8.per_tensor();
        poor.min_by(|a, b| per_tensor(a).total_cmp(&per_tensor(b)))
    }
}

/// Says how poor int8 weights are.
fn poor(before: &Int8Weights, after: &Int8Weights) -> String {
    let per_channel = after.sqnr_per_channel.map(|sqnr| format!(", {sqnr:.1} dB per channel"));
    let told = |sqnr: f64| format!("{sqnr:.1}");
    let per_tensor = match (after.sqnr_per_tensor, before.sqnr_per_tensor) {
        (Some(own), Some(old)) if told(own) == told(old) => format!("at {own:.1} dB, as before,"),
        (own, old) => less_exact(own, old),
    };
    let per_channel = per_channel.unwrap_or_default();
    format!("int8 weights are {per_tensor} with one step per tensor{per_channel}")
}

/// Names the branch that makes the weights poor; `None` if that is the kernel itself.
fn cause(compared: &Comparison) -> Option<String> {
    let DominantBranch { kernel, filters, all } = compared.dominant.as_ref()?;
    let taps = |taps: &usize| i64::try_from(*taps).ok();
    let own: Option<Vec<i64>> = compared.before.kernel.iter().map(taps).collect();
    let is_itself = kernel.is_some() && *kernel == own;
    let is_most = filters.saturating_mul(2) > *all && !is_itself;
    let branch = branch(kernel.as_deref());
    is_most.then(|| format!("{branch} holds the largest weight in {filters} of {all} filters"))
}

/// Describes the int8 weights of one kernel before and after, in one line.
pub(crate) fn change(compared: &Comparison) -> String {
    let (before, after) = (&compared.before.int8, &compared.after.int8);
    let both = |of: fn(&Int8Weights) -> Option<f64>| {
        let [before, after] = [before, after]
            .map(|int8| of(int8).map_or_else(|| "–".to_owned(), |number| format!("{number:.1}")));
        format!("{before} → {after}")
    };
    format!(
        "{} dB per tensor, {} dB per channel, crest factor {}",
        both(|int8| int8.sqnr_per_tensor),
        both(|int8| int8.sqnr_per_channel),
        both(|int8| int8.crest_factor)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_as_poor_before_is_told_so() {
        let with = " with one step per tensor";
        for (before, after, expected) in [
            (Some(25.71), Some(25.69), "int8 weights are at 25.7 dB, as before,"),
            (Some(35.6), Some(24.0), "int8 weights are at 24.0 dB instead of 35.6 dB"),
            (None, Some(24.0), "int8 weights are at 24.0 dB instead of exact"),
        ] {
            let [before, after] = [before, after]
                .map(|sqnr_per_tensor| Int8Weights { sqnr_per_tensor, ..Int8Weights::default() });
            assert_eq!(poor(&before, &after), format!("{expected}{with}"));
        }
    }
}
