//! The report as one HTML page that needs nothing else: no script, no font, no request.
//!
//! [`page`] puts the sections one below the other into the `frame` of every page: the `verdict`,
//! the `totals`, the whole `model` drawn as `lanes`, the `savings`, the `blocks` with their
//! `charts` and `drawing`, and what `stays`; `made` says how the report was made, with its
//! [`Origin`], which no other form of a report has. Many models have an [`index`]. A name in a
//! model may hold any character: each goes through `markup`, and the page's content security
//! policy blocks whatever might get through nevertheless. Whatever could be very long is cut,
//! and the page says so; the JSON report has everything.
//!
//! Knows the report's data; does not know where they come from.

mod blocks;
mod charts;
mod drawing;
mod frame;
mod index;
mod lanes;
mod made;
mod markup;
mod model;
mod origin;
mod savings;
mod stays;
mod totals;
mod verdict;

use crate::affine::{LEAST_SQNR, MOST_LOST};
use crate::report::html::charts::HeatMaps;
pub use crate::report::html::index::{IndexRow, index};
use crate::report::html::markup::{LISTED, left_out, magnitude, put, sentence, shown};
pub use crate::report::html::origin::Origin;
use crate::report::quantization::ADVICE;
use crate::report::verdict::findings;
use crate::report::{Average, Report};
use crate::verify::outcome::Outcome;

/// Upper bound on the number of kernel sizes whose average magnitude is shown.
const SIZES: usize = 40;

/// Returns the page; without an `origin` it names no command and no date.
pub fn page(report: &Report, origin: Option<&Origin>) -> String {
    let mut heat_maps = HeatMaps::default();
    let sections = [
        frame::head(&report.input.path),
        verdict::verdict(report),
        totals::totals(&report.sizes),
        verification(report),
        model::model(report),
        savings::savings(&report.blocks),
        quantization(report),
        stays::without_factors(report.equalization.as_ref()),
        averages(&report.averages(), &mut heat_maps),
        blocks::blocks(&report.blocks, &mut heat_maps),
        converted(report),
        stays::left_alone(&report.near_misses),
        made::files(report),
        made::request(report, origin),
        frame::END.to_owned(),
    ];
    sections.concat()
}

/// Returns the section about the proofs of the blocks and the run of the whole model; empty if
/// there is neither.
fn verification(report: &Report) -> String {
    if report.largest_proof_error().is_none() && report.run.is_none() {
        return String::new();
    }
    let mut html = "<h2>Verification</h2>\n".to_owned();
    for found in findings(report) {
        put!(html, "<p>{}.</p>\n", sentence(&found.text));
    }
    let errors: &[(String, f64)] = match &report.run {
        None | Some(Outcome::NotRun(_) | Outcome::Broken(_)) => &[],
        Some(Outcome::Differs { errors, tolerance, .. }) => {
            put!(html, "<p>The allowed difference is {}.</p>\n", magnitude(*tolerance));
            errors
        }
        Some(Outcome::Agreed(agreement)) => &agreement.errors,
    };
    if errors.is_empty() {
        return html;
    }
    html.push_str(
        "<div class=\"scroll\"><table><tr><th>output of the whole model</th>\
         <th class=\"n\">largest difference, relative to its largest value</th></tr>\n",
    );
    for (name, error) in errors.iter().take(LISTED) {
        let name = shown(name);
        put!(html, "<tr><td><code>{name}</code></td><td class=\"n\">{error:.1e}</td></tr>\n");
    }
    html.push_str("</table></div>\n");
    html.push_str(&left_out(errors.len(), LISTED, "output"));
    html
}

/// Returns the section about int8 weights; empty if neither weights nor outputs were examined.
fn quantization(report: &Report) -> String {
    let are_compared = report.blocks.iter().any(|block| block.weights.is_some());
    if !are_compared && report.int8_outputs.is_none() {
        return String::new();
    }
    let outputs = report.int8_outputs.map(|own| own.in_words());
    let (count, all) = (report.poor().count(), report.blocks.len());
    let mut html = "<h2>Before quantization</h2>\n".to_owned();
    if count == 0 {
        put!(
            html,
            "<p>No block has int8 weights below {LEAST_SQNR} dB, or more than {MOST_LOST} dB below \
             those before fusing.</p>\n"
        );
    } else {
        put!(
            html,
            "<p class=\"hint\">In {count} of {all} blocks, int8 weights are below {LEAST_SQNR} dB, \
             or more than {MOST_LOST} dB below those before fusing: {ADVICE}. These blocks are marked \
             below.</p>\n"
        );
    }
    html.extend(outputs.map(|said| format!("<p>{}.</p>\n", sentence(&said))));
    html.push_str(
        "<p class=\"soft\">Σw² / Σ(w − round(w))² in dB, with symmetric int8 and one step for the \
         whole tensor; 6 dB are one bit. Charts show max |w| of the output channels. \
         <em>Before</em> is the largest kernel of a block with the norms of its \
         own branch folded; <em>stored</em> is the same kernel as it is in the file.</p>\n",
    );
    html
}

/// Returns the section with the average magnitudes of the kernels of each size.
fn averages(averages: &[Average], heat_maps: &mut HeatMaps) -> String {
    if averages.is_empty() {
        return String::new();
    }
    let mut html =
        "<h2>Average kernel magnitude</h2>\n<p class=\"soft\">Σ|w| over filters and channels at \
         each position, divided by the largest such sum, averaged over all fused kernels of one \
         size (ACNet, Eq. 9 and 10, Fig. 6). A darker field (on a dark page: a lighter one) is a \
         larger value.</p>\n"
            .to_owned();
    for average in averages.iter().take(SIZES) {
        put!(html, "<h3>{}</h3><div class=\"pair\">", average.size());
        if let Some((before, layers)) = &average.before {
            let caption = format!("before: the largest kernel, norms folded ({layers})");
            html.push_str(&heat_maps.figure(&average.kernel, before, &caption));
        }
        let caption = format!("after: the fused kernel ({})", average.layers);
        html.push_str(&heat_maps.figure(&average.kernel, &average.after, &caption));
        html.push_str("</div>\n");
    }
    html.push_str(&left_out(averages.len(), SIZES, "kernel size"));
    html
}

/// Returns the section about the nodes that no longer compute what the file said.
fn converted(report: &Report) -> String {
    let converted = &report.notes.converted_nodes;
    let rows = converted.iter().map(|node| (shown(&node.node), node.change.to_owned()));
    table_of_nodes(
        "<h2>Converted to inference</h2>\n<p>In training mode, the file computed something \
         else.</p>\n",
        "what changed",
        rows,
        "node",
    )
}

/// Returns a section with a table of nodes and what is said of each, all of it safe markup;
/// empty if there are no rows.
fn table_of_nodes(
    head: &str,
    column: &str,
    rows: impl ExactSizeIterator<Item = (String, String)>,
    noun: &str,
) -> String {
    let count = rows.len();
    if count == 0 {
        return String::new();
    }
    let mut html =
        format!("{head}<div class=\"scroll\"><table><tr><th>node</th><th>{column}</th></tr>\n");
    for (node, said) in rows.take(LISTED) {
        put!(html, "<tr><td><code>{node}</code></td><td>{said}</td></tr>\n");
    }
    html.push_str("</table></div>\n");
    html.push_str(&left_out(count, LISTED, noun));
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affine::{Comparison, Int8Weights, Magnitude, Spread};
    use crate::report::{BlockCost, BlockReport, BlockSteps, Layer, Layers, Mode};

    /// With many blocks, long names and large kernels, browsers can still open the page.
    #[test]
    fn a_large_report_is_cut_and_says_so() {
        let name = "<".repeat(10_000);
        let spread = Spread { smallest: 1.0, largest: 9.0, ratio: Some(9.0), ..Spread::default() };
        let magnitude = |taps: usize| Magnitude {
            kernel: vec![taps, taps],
            by_position: vec![0.5; taps * taps],
            channels: spread,
            int8: Int8Weights::default(),
        };
        let block = |number: usize| BlockReport {
            name: format!("{number}{name}"),
            branches: "3×3 + 1×3".to_owned(),
            steps: BlockSteps { branches: vec![vec!["a<b".into(); 9]; 99], after: vec![] },
            norms: 0,
            removed_nodes: vec!["node".to_owned(); 1000],
            new_nodes: Vec::new(),
            new_tensors: Vec::new(),
            reads: Vec::new(),
            output: String::new(),
            geometry: Vec::new(),
            positions: None,
            conditions: Vec::new(),
            before: BlockCost { nodes: 2, parameters: 2, multiply_adds_per_position: 2.0 },
            after: BlockCost { nodes: 1, parameters: 1, multiply_adds_per_position: 1.0 },
            proof: None,
            weights: Some(vec![Comparison {
                stored: spread,
                before: magnitude(31),
                after: magnitude(if number == 0 { 99 } else { 31 }),
                dominant: None,
            }]),
            kept_apart: Vec::new(),
            hint_setting: None,
            hint: (number == 300).then(|| "look at this".to_owned()),
        };
        let mut report = Report::new("model.onnx".to_owned(), Mode::Verified);
        report.blocks = (0..400).map(block).collect();
        let node =
            || Layer::Node { operator: "Relu".to_owned(), name: name.clone(), is_strided: false };
        let layers = (0..3_000)
            .flat_map(|number| [Layer::Block { number: number % 400, removed: 2 }, node()]);
        report.layers = Some(Layers { layers: layers.collect(), left_out: 17 });
        let page = page(&report, None);
        assert!(page.len() < 8 << 20, "{} bytes", page.len());
        for part in [
            "look at this",
            "200 blocks are shown: first those",
            "99×99 not drawn",
            "31×31 not drawn",
            "91 more",
            "and 960 more",
            "5000 further rows of layers and 17 further nodes",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(page.contains("<details id=\"b300\">") && !page.contains("<details id=\"b200\">"));
    }
}
