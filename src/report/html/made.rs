//! How the report was made: the files, the command, its options and limits, and the time that
//! each step took.
//!
//! Knows the report's data; does not know what was found.

use crate::report::Report;
use crate::report::html::markup::{LISTED, UNKNOWN, fact, grouped_if_known, put, sentence, shown};
use crate::report::html::origin::Origin;

/// Returns the section about the files that were read and written.
pub fn files(report: &Report) -> String {
    let mut html = "<h2>Files</h2>\n<div class=\"scroll\"><table><tr><th></th><th>file</th>\
                    <th class=\"n\">bytes</th><th>SHA-256</th></tr>\n"
        .to_owned();
    let files = [("read", Some(&report.input)), ("written", report.output.as_ref())];
    for (what, file) in files {
        let Some(file) = file else { continue };
        let sides = file.side_files.iter().take(LISTED);
        let sides = sides.map(|side| (&side.location, side.bytes, &side.sha256));
        for (path, bytes, sha256) in
            [(&file.path, file.bytes, &file.sha256)].into_iter().chain(sides)
        {
            put!(
                html,
                "<tr><td>{what}</td><td><code>{}</code></td><td class=\"n\">{}</td>\
                 <td><code>{}</code></td></tr>\n",
                shown(path),
                grouped_if_known(bytes.map(|bytes| bytes as f64)),
                sha256.as_deref().unwrap_or(UNKNOWN)
            );
        }
    }
    html.push_str("</table></div>\n");
    html
}

/// Returns the section about the command, its options, the bounds of the checks, and the time.
pub fn request(report: &Report, origin: Option<&Origin>) -> String {
    let mut html = "<h2>How this was made</h2>\n".to_owned();
    html.extend(origin.map(Origin::shown));
    html.push_str("<div class=\"pair\">");
    for (title, facts) in [
        ("Choices", choices(report)),
        ("Checks", checks(report)),
        ("Versions", versions(report)),
        ("Seconds", seconds(report)),
    ] {
        let facts = facts.iter().map(|(what, value)| fact(what, &sentence(value)));
        put!(html, "<div><h3>{title}</h3><dl>{}</dl></div>", facts.collect::<String>());
    }
    html.push_str("</div>\n");
    html
}

/// The bytes of one GiB.
const GIB: f64 = (1_u64 << 30) as f64;

type FactRows = Vec<(&'static str, String)>;

fn choices(report: &Report) -> FactRows {
    let asked = &report.options;
    let shapes = asked.input_shapes.iter().map(|own| format!("{} {:?}", own.input, own.shape));
    let listed = |mut names: Vec<String>| {
        let more = names.len().saturating_sub(LISTED);
        names.truncate(LISTED);
        names.extend((more > 0).then(|| format!("{more} more")));
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    vec![
        ("equalize", asked.equalize.unwrap_or("no").to_owned()),
        ("keep identity", asked.keep_identity.to_owned()),
        ("keep overridable", yes_or_no(asked.keep_overridable)),
        ("growth", asked.growth.to_string()),
        ("training mode", asked.training_mode.to_owned()),
        ("skip", listed(asked.skip.clone())),
        ("input shapes", listed(shapes.collect())),
        ("require fusion", yes_or_no(asked.require_fusion)),
    ]
}

fn checks(report: &Report) -> FactRows {
    let (asked, seeds, allowed) = (&report.options, &report.seeds, &report.tolerances);
    let given = match asked.given_inputs.len() {
        0 => "none".to_owned(),
        count => count.to_string(),
    };
    vec![
        ("inputs given", given),
        ("random inputs", asked.samples.to_string()),
        ("seed of the runs", seeds.run.to_string()),
        ("seed of the proofs", seeds.proof.to_string()),
        ("proofs may differ by", format!("{:e}", allowed.proof)),
        ("outputs in float32", format!("{:e}", allowed.float32)),
        ("in float16, bfloat16", format!("{:e}", allowed.float16)),
        ("in float64", format!("{:e}", allowed.float64)),
        ("require run", yes_or_no(asked.require_run)),
        ("time limit", format!("{} s", asked.verify_seconds)),
        ("memory limit", format!("{} GiB", asked.verify_bytes as f64 / GIB)),
    ]
}

fn versions(report: &Report) -> FactRows {
    let (tool, versions) = (&report.tool, &report.versions);
    let known = |number: Option<String>| number.unwrap_or_else(|| UNKNOWN.to_owned());
    vec![
        ("tool", format!("{} {}", tool.name, tool.version)),
        ("schema of the report", report.schema.to_string()),
        ("engine", versions.engine.to_owned()),
        ("format of the file (IR)", known(versions.ir.map(|version| version.to_string()))),
        ("operator set", known(versions.opset.map(|version| version.to_string()))),
        ("newest known operator set", versions.newest_opset.to_string()),
    ]
}

fn seconds(report: &Report) -> FactRows {
    let took = &report.seconds;
    let rows = [
        ("read", took.read),
        ("plan", took.plan),
        ("fuse and prove", took.fuse_and_prove),
        ("write", took.write),
        ("read back", took.read_back),
        ("run", took.run),
        ("equalize", took.equalize),
        ("int8", took.int8),
        ("total", took.total),
    ];
    rows.map(|(what, seconds)| (what, format!("{seconds:.2}"))).to_vec()
}

fn yes_or_no(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}
