//! The blocks that save most, with a bar for each.
//!
//! Knows savings and how text is marked up; does not count them.

use crate::report::BlockReport;
use crate::report::html::markup::{cut, put, shown};
use crate::report::savings::{Saved, Savings};
use crate::report::words::{amount, branches_and_norms};

/// Upper bound on the number of blocks that are listed.
const MOST: usize = 10;

/// Returns the section about the blocks that save most; empty if none saves anything.
pub fn savings(blocks: &[BlockReport]) -> String {
    let savings = Savings::of(blocks);
    let Some((_, largest)) = savings.blocks.first().filter(|(_, saved)| *saved > 0.0) else {
        return String::new();
    };
    let what = match savings.of {
        Saved::MultiplyAdds => "multiply-adds saved",
        Saved::Parameters => "parameters saved",
    };
    let mut html = format!(
        "<h2>Which blocks save most</h2>\n<div class=\"scroll\"><table><tr><th>block</th>\
         <th>branches</th><th class=\"n\">{what}</th><th class=\"n\">of all</th><th></th></tr>\n"
    );
    for (block, saved) in savings.blocks.iter().take(MOST).filter(|(_, saved)| *saved > 0.0) {
        put!(
            html,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.0} %</td>\
             <td class=\"bar\"><svg role=\"img\" aria-hidden=\"true\" width=\"160\" height=\"12\" \
             viewBox=\"0 0 160 12\"><rect width=\"{:.1}\" height=\"12\"/></svg></td></tr>\n",
            cut(&block.name),
            shown(&branches_and_norms(block)),
            amount(saved.round()),
            saved / savings.all * 100.0,
            saved / largest * 160.0
        );
    }
    html.push_str("</table></div>\n");
    let others = savings.blocks.iter().skip(MOST).filter(|(_, saved)| *saved > 0.0);
    let (count, rest) = others
        .fold((0usize, 0.0), |(count, sum), (_, saved)| (count.saturating_add(1), sum + saved));
    if count > 0 {
        let save = match count {
            1 => "1 further block saves".to_owned(),
            _ => format!("{count} further blocks together save"),
        };
        put!(
            html,
            "<p class=\"soft\">{save} {}, {:.0} % of the total.</p>\n",
            amount(rest.round()),
            rest / savings.all * 100.0
        );
    }
    html
}
