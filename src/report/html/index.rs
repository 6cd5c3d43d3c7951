//! The index of many models: a row for each, with a link to the model's page.
//!
//! Knows what a row holds; of each report, only its row is kept.

use crate::report::html::frame;
use crate::report::html::markup::{UNKNOWN, cut, grouped_if_known, left_out, put, sentence};
use crate::report::html::origin::Origin;
use crate::report::html::totals::percent;
use crate::report::html::verdict::ending;
use crate::report::words::counted;
use crate::report::{Change, Ending, Outcome, Report, Size};

/// Upper bound on the number of models that are listed.
const MODELS: usize = 20_000;

/// A row of the index, about one model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct IndexRow {
    /// The path of the model that was read.
    model: String,
    /// The path of the model's page, relative to the index: only letters, digits and `-_./`.
    page: String,
    /// How the conversion ended: the class in the style sheet, and the text.
    verdict: (&'static str, String),
    /// Number of blocks that were, or would be, fused.
    blocks: usize,
    /// The sizes of the model, before and after.
    sizes: Change<Size>,
    /// Number of places that are left alone.
    stays: usize,
    /// The largest difference of an output of both models; `None` if no outputs were compared.
    error: Option<f64>,
}

impl IndexRow {
    /// Creates the row of a report whose page is called `page`.
    pub fn of(report: &Report, page: String) -> Self {
        let verdict = match &report.error {
            Some(error) => ("bad", error.message.clone()),
            None => ending(report),
        };
        IndexRow {
            model: report.input.path.clone(),
            page,
            verdict,
            blocks: if report.outcome == Ending::Failed { 0 } else { report.blocks.len() },
            sizes: report.sizes,
            stays: report.near_misses.len(),
            error: report.run.as_ref().and_then(Outcome::largest_error),
        }
    }
}

/// Returns the page of the index.
pub fn index(rows: &[IndexRow], origin: &Origin) -> String {
    let mut html = frame::head(&counted(rows.len(), "model"));
    let failed = rows.iter().filter(|row| row.verdict.0 == "bad").count();
    let with_blocks = rows.iter().filter(|row| row.blocks > 0).count();
    let blocks = rows.iter().fold(0usize, |sum, row| sum.saturating_add(row.blocks));
    put!(
        html,
        "<div class=\"verdict {}\"><strong>{} with something to fuse, {} in all; {failed} \
         failed.</strong></div>\n",
        if failed > 0 { "bad" } else { "good" },
        counted(with_blocks, "model"),
        counted(blocks, "block")
    );
    html.push_str(
        "<div class=\"scroll\"><table class=\"wide\"><tr><th>model</th><th>outcome</th>\
         <th class=\"n\">blocks</th><th class=\"n\">nodes</th><th class=\"n\">multiply-adds</th>\
         <th class=\"n\">bytes</th><th class=\"n\">stays</th><th class=\"n\">outputs differ by</th>\
         </tr>\n",
    );
    for row in rows.iter().take(MODELS) {
        let (class, verdict) = &row.verdict;
        let error = row.error.map(|error| format!("{error:.1e}"));
        put!(
            html,
            "<tr><td><a href=\"{}\"><code>{}</code></a></td><td><span class=\"said {class}\">{}\
             </span></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
            row.page,
            cut(&row.model),
            sentence(verdict),
            row.blocks,
            change(&row.sizes, |size| size.nodes.map(|nodes| nodes as f64)),
            percent_of(&row.sizes, |size| size.multiply_adds),
            percent_of(&row.sizes, |size| size.bytes.map(|bytes| bytes as f64)),
            row.stays,
            error.unwrap_or_else(|| UNKNOWN.to_owned())
        );
    }
    html.push_str("</table></div>\n");
    html.push_str(&left_out(rows.len(), MODELS, "model"));
    html.push_str("<h2>How this was made</h2>\n");
    html.push_str(&origin.shown());
    html.push_str(frame::END);
    html
}

fn change(sizes: &Change<Size>, of: impl Fn(&Size) -> Option<f64>) -> String {
    let [before, after] = [&sizes.before, &sizes.after].map(of).map(grouped_if_known);
    format!("{before} → {after}")
}

fn percent_of(sizes: &Change<Size>, of: impl Fn(&Size) -> Option<f64>) -> String {
    match percent(of(&sizes.before), of(&sizes.after)) {
        unknown if unknown.is_empty() => UNKNOWN.to_owned(),
        percent => percent,
    }
}
