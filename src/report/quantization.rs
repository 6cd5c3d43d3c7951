//! What becomes of a block's weights as int8, and what to do about it.
//!
//! Knows magnitudes; neither how they were measured nor which flags there are.

use crate::affine::{Comparison, DominantBranch, Int8Weights, branch};
use crate::refusal::less_exact;
use crate::report::BlockReport;
use crate::setting::Setting;

/// What helps every kernel.
pub const ADVICE: &str = "quantize weights per channel, or equalize them across layers first";

impl BlockReport {
    /// Notes what became of its weights, and what to do about it.
    pub fn note_weights(&mut self, weights: Option<Vec<Comparison>>) {
        self.weights = weights;
        let hint = self.poorest().map(|compared| {
            let cause = cause(compared);
            // What was as poor before is not the branch's doing alone.
            let is_lost = compared.after.int8.is_lost_beside(&compared.before.int8);
            let helps = cause.is_some() && is_lost;
            let setting = helps.then_some(Setting::KeepDominant);
            let helps = setting.as_ref().map(|setting| format!("{setting} helps"));
            let helps = helps.unwrap_or_else(|| ADVICE.to_owned());
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            (format!("{}{cause} ({helps})", poor(compared)), setting)
        });
        (self.hint, self.hint_setting) = match hint {
            Some((hint, setting)) => (Some(hint), setting),
            None => (None, None),
        };
    }

    /// Of the convolutions whose weights are poor as int8, the one whose are the poorest.
    pub(crate) fn poorest(&self) -> Option<&Comparison> {
        let all = self.weights.iter().flatten();
        let poor = all.filter(|compared| compared.after.int8.is_poor_beside(&compared.before.int8));
        let per_tensor = |compared: &Comparison| compared.after.int8.per_tensor();
        poor.min_by(|a, b| per_tensor(a).total_cmp(&per_tensor(b)))
    }
}

/// How poor int8 weights are.
fn poor(compared: &Comparison) -> String {
    let (before, after) = (&compared.before.int8, &compared.after.int8);
    let per_channel = after.sqnr_per_channel.map(|sqnr| format!(", {sqnr:.1} dB per channel"));
    format!(
        "int8 weights are {} with one step per tensor{}",
        less_exact(after.sqnr_per_tensor, before.sqnr_per_tensor),
        per_channel.unwrap_or_default()
    )
}

/// The branch that makes them so, if it is not the kernel itself.
fn cause(compared: &Comparison) -> Option<String> {
    let DominantBranch { kernel, filters, all } = compared.dominant.as_ref()?;
    let taps = |taps: &usize| i64::try_from(*taps).ok();
    let own: Option<Vec<i64>> = compared.before.kernel.iter().map(taps).collect();
    let is_itself = kernel.is_some() && *kernel == own;
    let is_most = filters.saturating_mul(2) > *all && !is_itself;
    let branch = branch(kernel.as_deref());
    is_most.then(|| format!("{branch} holds the largest weight in {filters} of {all} filters"))
}

/// One kernel's int8 weights before and after, in a line.
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
