//! What stays as it is: places that were left alone, and channels without a factor, with each
//! reason once and what helps.
//!
//! Knows the places and their reasons; does not know how these were found.

use crate::report::groups::{Group, groups};
use crate::report::html::markup::{LISTED, left_out, put, sentence, shown};
use crate::report::{Equalization, LeftAlone};

/// Upper bound on the number of reasons that are listed.
const REASONS: usize = 200;
/// Number of names that stand beside a reason; the others are folded away.
const NAMED: usize = 3;

/// Returns the section about the places that were left alone; empty if there are none.
pub fn left_alone(places: &[LeftAlone]) -> String {
    if places.is_empty() {
        return String::new();
    }
    let groups = groups(places);
    let mut html = "<h2>What stays, and why</h2>\n<div class=\"scroll\"><table class=\"wide\"><tr>\
                    <th>what</th><th>why</th><th>what helps</th></tr>\n"
        .to_owned();
    let mut listed = 0usize;
    for group in groups.iter().take(REASONS) {
        let help = group.places.first().map(|place| sentence(&place.help)).unwrap_or_default();
        put!(
            html,
            "<tr><td>{}{}</td><td>{}</td><td>{help}</td></tr>\n",
            group.counted(),
            names(group, &mut listed),
            sentence(group.reason())
        );
    }
    html.push_str("</table></div>\n");
    html.push_str(&left_out(groups.len(), REASONS, "reason"));
    html
}

/// Returns the names of a group's places. `listed` counts the folded names of the whole page, of
/// which there are at most [`LISTED`].
fn names(group: &Group, listed: &mut usize) -> String {
    let name = |place: &&LeftAlone| format!("<code>{}</code>", shown(&place.node));
    let (first, others) = group.places.split_at(group.places.len().min(NAMED));
    let first: Vec<String> = first.iter().map(name).collect();
    let mut html = format!("<br>{}", first.join("<br>"));
    if others.is_empty() {
        return html;
    }
    let room = LISTED.saturating_sub(*listed).min(others.len());
    *listed = listed.saturating_add(room);
    let shown: Vec<String> = others.iter().take(room).map(name).collect();
    put!(
        html,
        "<details><summary>{} more</summary>{}{}</details>",
        others.len(),
        shown.join("<br>"),
        left_out(others.len(), room, "place")
    );
    html
}

/// Returns the section about scaling channels, with the reasons why tensors have no factor;
/// empty if it was not asked for.
pub fn without_factors(equalization: Option<&Equalization>) -> String {
    let Some(own) = equalization else { return String::new() };
    let mut html =
        format!("<h2>Channels scaled for 8 bits</h2>\n<p>{}.</p>\n", sentence(&own.in_words()));
    if own.pinned.is_empty() {
        return html;
    }
    html.push_str(
        "<div class=\"scroll\"><table><tr><th>tensors whose channels keep the factor 1</th>\
         <th class=\"n\">how many</th></tr>\n",
    );
    let mut pinned: Vec<(&String, &usize)> = own.pinned.iter().collect();
    pinned.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    for (why, count) in pinned {
        put!(html, "<tr><td>{}</td><td class=\"n\">{count}</td></tr>\n", sentence(why));
    }
    html.push_str("</table></div>\n");
    html
}
