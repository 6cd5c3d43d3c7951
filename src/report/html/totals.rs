//! The sizes of the whole model, before and after.
//!
//! Knows sizes and how text is marked up; does not count anything.

use crate::report::html::markup::{grouped_if_known, put};
use crate::report::{Change, Size};

/// Returns the section with the sizes of the whole model.
pub fn totals(sizes: &Change<Size>) -> String {
    let mut html =
        "<h2>Totals</h2>\n<div class=\"scroll\"><table><tr><th></th><th class=\"n\">before</th>\
         <th class=\"n\">after</th><th class=\"n\">change</th></tr>\n"
            .to_owned();
    type Of = fn(&Size) -> Option<f64>;
    let rows: [(&str, Of); 4] = [
        ("bytes, side files included", |size| size.bytes.map(|bytes| bytes as f64)),
        ("nodes", |size| size.nodes.map(|nodes| nodes as f64)),
        ("parameters stored", |size| size.parameters.map(|count| count as f64)),
        ("multiply-adds", |size| size.multiply_adds),
    ];
    for (what, of) in rows {
        let (before, after) = (of(&sizes.before), of(&sizes.after));
        put!(
            html,
            "<tr><td>{what}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td></tr>\n",
            grouped_if_known(before),
            grouped_if_known(after),
            percent(before, after)
        );
    }
    html.push_str(
        "</table></div>\n<p class=\"soft\">Multiply-adds are for the known input sizes, and for \
         one image where the batch size is open. – means not known, or not made.</p>\n",
    );
    html
}

/// Returns by how much a quantity grew, in percent; empty if that is not known.
pub fn percent(before: Option<f64>, after: Option<f64>) -> String {
    match (before, after) {
        (Some(before), Some(after)) if before == after => "0 %".to_owned(),
        (Some(before), Some(after)) if before > 0.0 => {
            format!("{:+.1} %", (after / before - 1.0) * 100.0).replace('-', "−")
        }
        _ => String::new(),
    }
}
