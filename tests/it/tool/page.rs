//! The HTML report: what the page says of a model, and that its drawing is of the whole model.

use std::fs;

use serde_json::Value;

use crate::support::cases;
use crate::support::tool::tool;

/// Returns the page and the JSON of one run with `arguments`; OUT is a new file.
fn reported(arguments: &[&str]) -> (String, Value) {
    let folder = tempfile::tempdir().unwrap();
    let [out, page, json] = ["out.onnx", "page.html", "report.json"]
        .map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let named = arguments.iter().map(|&argument| if argument == "OUT" { &out } else { argument });
    let reports = ["--report", &page, "--report", &json];
    let done = tool().args(named).args(reports).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {done:?}");
    let json = fs::read_to_string(json).unwrap();
    (fs::read_to_string(page).unwrap(), serde_json::from_str(&json).unwrap())
}

/// Returns the two numbers of each ` → ` before ` nodes` in `text`.
fn changes(text: &str) -> Vec<[u64; 2]> {
    let number = |word: Option<&str>| {
        let digits = word?.trim_matches(|c: char| !c.is_ascii_digit());
        digits.parse::<u64>().ok()
    };
    let arrows = text.match_indices(" → ").filter_map(|(at, arrow)| {
        let before = number(text[..at].rsplit([' ', '>']).next())?;
        let rest = &text[at + arrow.len()..];
        let after = number(rest.split(' ').next())?;
        rest.split_once(' ')?.1.starts_with("nodes").then_some([before, after])
    });
    arrows.collect()
}

/// Each row: arguments, what the page says, and what it does not say.
#[test]
fn a_page_says_what_it_is_asked_for() {
    let names = ["norms_that_stay", "loop_body"];
    let [norms, body] = &names.map(cases::model);
    let resnet = "fixtures/networks/resnet18/torchscript_kept_static.onnx";
    let acnet = "fixtures/trained/acnet_quick/folded.onnx";
    let plain = "fixtures/networks/cifar_quick/plain.onnx";
    type Said<'s> = &'s [&'s str];
    let cases: &[(&[&str], Said, Said)] = &[
        (
            &[resnet, "OUT"],
            &[
                "<strong>Stage 4</strong> 5 blocks",
                "class=\"row c5\"",
                "<span class=\"chip\">GlobalAveragePool</span>",
                "<h2>Which blocks save most</h2>",
                "multiply-adds saved",
                "10 further blocks together save",
                "<dt>seed of the proofs</dt><dd>1</dd>",
            ],
            &["not drawn.</p>", "What stays"],
        ),
        (
            &["fixtures/blocks/k3_p0/torchscript_kept.onnx", "OUT"],
            &["<div class=\"row stays unread\"><span class=\"chip\">Constant"],
            &["row stays\""],
        ),
        (&["fixtures/relatives/repvit_m0_9/torchscript_kept_static.onnx", "OUT"], &[], &[]),
        (&["fixtures/trained/mobileone/kept.onnx"], &[], &[]),
        (&[resnet], &["<strong>Stage 4</strong> 5 blocks", "Only looked"], &["Stage 5"]),
        (&[plain, "OUT"], &["Written as it was read"], &["The model before", "save most"]),
        (
            &[body, "OUT"],
            &["a body of an If, Loop or Scan", "parameters saved"],
            &["multiply-adds saved"],
        ),
        (
            &[norms, "OUT"],
            &["<h2>What stays, and why</h2>", "<td>3 norms<br>", "Fill the border with the bias"],
            &["The model before"],
        ),
        (
            &[acnet, "OUT", "--equalize"],
            &["tensors whose channels keep the factor 1", "graph inputs and outputs"],
            &[],
        ),
    ];
    for (arguments, said, not_said) in cases {
        let (page, json) = reported(arguments);
        for part in *said {
            assert!(page.contains(part), "{arguments:?}: no {part}");
        }
        for part in *not_said {
            assert!(!page.contains(part), "{arguments:?}: {part}");
        }
        let Some((_, drawing)) = page.split_once("<h2>The model before and after</h2>") else {
            continue;
        };
        let (drawing, _) = drawing.split_once("<h2>").unwrap();
        let nodes = |side: &str| json["sizes"][side]["nodes"].as_u64().unwrap();
        let all = changes(drawing)[0];
        assert_eq!(all, [nodes("before"), nodes("after")], "{arguments:?}");
        let stages = drawing.split("<summary>").skip(1);
        let stages: Vec<[u64; 2]> = stages.map(|stage| changes(stage)[0]).collect();
        let sums = [0, 1].map(|side| stages.iter().map(|stage| stage[side]).sum::<u64>());
        assert_eq!(sums, all, "{arguments:?}: {stages:?}");
    }
}

/// Many models have an index with a row for each, which leads to a page for each.
#[test]
fn an_index_leads_to_a_page_for_each_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [out, index, lines] = ["out", "all of them.html", "all.jsonl"].map(path);
    let network = "fixtures/networks/cifar_quick/torchscript_kept_static.onnx";
    let plain = "fixtures/networks/cifar_quick/plain.onnx";
    let models = [network, "no/such/<file>.onnx", plain];
    for reports in [&["--report", &index][..], &["--report", &index, "--report", &lines]] {
        let arguments = [&["--out-dir", &out, "--jobs", "2"][..], reports, &models].concat();
        let done = tool().args(&arguments).output().unwrap();
        assert_eq!(done.status.code(), Some(8), "{done:?}");
        let page = fs::read_to_string(&index).unwrap();
        for said in [
            "3 models",
            "1 model with something to fuse, 3 blocks in all; 1 failed",
            "34 → 13",
            "<table",
        ] {
            assert!(page.contains(said), "no {said}");
        }
        let links: Vec<&str> =
            page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let expected = [
            "all%20of%20them.pages/0001-torchscript_kept_static.onnx.html",
            "all%20of%20them.pages/0002-_file_.onnx.html",
            "all%20of%20them.pages/0003-plain.onnx.html",
        ];
        assert_eq!(links, expected);
        for (link, model) in links.iter().zip(models) {
            let page = fs::read_to_string(path(&link.replace("%20", " "))).unwrap();
            let title = model.replace('<', "&lt;").replace('>', "&gt;");
            assert!(page.contains(&format!("<h1>{title}</h1>")), "{link}");
        }
    }
    assert_eq!(fs::read_to_string(&lines).unwrap().lines().count(), 3);
    let pages = path("all of them.pages");
    for (arguments, said) in [
        (&["--out-dir", &pages, "--report", &index, plain][..], "among the pages"),
        (&["--out-dir", &out, "--report", &index, "--report", &path("b.html"), plain], "one FILE"),
    ] {
        let done = tool().args(arguments).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&done.stderr).contains(said), "{done:?}");
    }
}
