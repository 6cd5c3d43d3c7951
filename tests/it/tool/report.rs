//! Reports: what is in them, whatever the outcome, and that the schema describes it.
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::cases;
use crate::support::tool::tool;

const BLOCK: &str = "fixtures/blocks/k3/torchscript_kept.onnx";
const PLAIN: &str = "fixtures/networks/cifar_quick/plain.onnx";
const NETWORK: &str = "fixtures/networks/cifar_quick/torchscript_kept_static.onnx";

fn output(arguments: &[&str]) -> Output {
    tool().args(arguments).output().unwrap()
}

fn schema() -> Value {
    serde_json::from_str(acb_fuse::report::JSON_SCHEMA).unwrap()
}

/// Adds to `found` where `value` is not what `schema` says. Knows the keywords that our schema
/// uses, and panics at all others: a validator among the dependencies would have tract compiled
/// with other features.
fn violations(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().expect(at) {
        let mut expect = |holds: bool| {
            if !holds {
                found.push(format!("{at}: {keyword} {rule}"));
            }
        };
        let is_type = |name: &Value| match name.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "number" => value.is_number(),
            "integer" => value.is_u64() || value.is_i64(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("type {other}"),
        };
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => {}
            "type" if rule.is_array() => expect(rule.as_array().unwrap().iter().any(is_type)),
            "type" => expect(is_type(rule)),
            "const" => expect(value == rule),
            "enum" => expect(rule.as_array().unwrap().contains(value)),
            "minimum" => expect(value.as_f64().is_none_or(|v| v >= rule.as_f64().unwrap())),
            "maximum" => expect(value.as_f64().is_none_or(|v| v <= rule.as_f64().unwrap())),
            "minItems" => {
                expect(value.as_array().is_none_or(|v| v.len() as u64 >= rule.as_u64().unwrap()))
            }
            "maxItems" => {
                expect(value.as_array().is_none_or(|v| v.len() as u64 <= rule.as_u64().unwrap()))
            }
            "pattern" => {
                assert_eq!(rule, "^[0-9a-f]{64}$");
                let is_hash = |text: &str| {
                    text.len() == 64 && text.bytes().all(|b| b"0123456789abcdef".contains(&b))
                };
                expect(value.as_str().is_none_or(is_hash));
            }
            "required" => {
                let keys = rule.as_array().unwrap();
                expect(keys.iter().all(|key| value.get(key.as_str().unwrap()).is_some()));
            }
            "additionalProperties" => {
                let is_known = |key: &String| schema["properties"].get(key).is_some();
                let entries = value.as_object().into_iter().flatten();
                for (key, value) in entries.filter(|(key, _)| !is_known(key)) {
                    match rule {
                        Value::Object(_) => {
                            violations(root, rule, value, &format!("{at}/{key}"), found);
                        }
                        _ => found.push(format!("{at}: {key} is not known")),
                    }
                }
            }
            "properties" => {
                for (key, rule) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(key) {
                        violations(root, rule, value, &format!("{at}/{key}"), found);
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    violations(root, rule, item, &format!("{at}/{index}"), found);
                }
            }
            "$ref" => {
                let rule = root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap());
                violations(root, rule.unwrap(), value, at, found);
            }
            "anyOf" => {
                let holds = |rule: &Value| {
                    let mut found = Vec::new();
                    violations(root, rule, value, at, &mut found);
                    found.is_empty()
                };
                expect(rule.as_array().unwrap().iter().any(holds));
            }
            other => panic!("the schema uses {other}"),
        }
    }
}

fn is_valid(report: &Value) -> Result<(), String> {
    let (schema, mut found) = (schema(), Vec::new());
    violations(&schema, &schema, report, "", &mut found);
    if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
}

/// Returns the report of a run with `arguments` (OUT is a new file), and the exit code.
fn reported(arguments: &[&str]) -> (Value, i32) {
    let folder = tempfile::tempdir().unwrap();
    let [out, report] = ["out.onnx", "report.json"].map(|name| folder.path().join(name));
    let named = |&argument: &&str| match argument {
        "OUT" => out.to_str().unwrap().to_owned(),
        other => other.to_owned(),
    };
    let mut arguments: Vec<String> = arguments.iter().map(named).collect();
    arguments.extend(["--report".to_owned(), report.to_str().unwrap().to_owned()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = output(&arguments);
    let text = fs::read_to_string(&report).unwrap_or_else(|_| panic!("{arguments:?}: {result:?}"));
    (serde_json::from_str(&text).unwrap(), result.status.code().unwrap())
}

/// Each row: arguments, exit code, and values in the report.
#[test]
fn every_outcome_has_a_valid_report() {
    let names = ["different_strides", "loop_body", "norms_around_gemm"];
    let [strides, unrunnable, gemm] = &names.map(cases::model);
    let broken = tempfile::NamedTempFile::new().unwrap();
    fs::write(broken.path(), b"not a model at all").unwrap();
    let broken = broken.path().to_str().unwrap();
    type Values<'v> = &'v [(&'v str, Value)];
    let cases: &[(&[&str], i32, Values)] = &[
        (
            &[NETWORK],
            0,
            &[
                ("/outcome", json!("looked")),
                ("/mode", json!("look")),
                ("/output", Value::Null),
                ("/blocks/0/weights", Value::Null),
                ("/blocks/0/branches", json!("5×5 + 1×5 + 5×1")),
                ("/sizes/after/nodes", json!(13)),
                ("/sizes/after/multiply_adds", json!(9127616)),
                ("/operators", json!([])),
                ("/verdict", Value::Null),
            ],
        ),
        (
            &[NETWORK, "OUT"],
            0,
            &[
                ("/outcome", json!("written")),
                ("/mode", json!("verified")),
                ("/error", Value::Null),
                ("/blocks/2/new_tensors", json!(["6.fused.weight", "6.fused.bias"])),
                ("/blocks/0/geometry/0/pads", json!([[2, 2], [2, 2]])),
                ("/blocks/0/positions", json!(8192)),
                ("/run/outcome", json!("agreed")),
                ("/sizes/before/parameters", json!(12914)),
                ("/sizes/after/parameters", json!(10402)),
                ("/sizes/before/multiply_adds", json!(13006080)),
                ("/options/keep_identity", json!("never")),
                ("/options/growth", json!(0.1)),
                ("/options/given_inputs", json!([])),
                ("/seeds", json!({"proof": 1, "run": 0})),
                ("/tolerances/proof", json!(1e-12)),
                ("/tolerances/float32", json!(1e-4)),
                ("/versions/opset", json!(20)),
                (
                    "/operators",
                    json!([
                        {"operator": "BatchNormalization", "before": 9, "after": 0},
                        {"operator": "Add", "before": 6, "after": 0},
                        {"operator": "Conv", "before": 9, "after": 3},
                    ]),
                ),
            ],
        ),
        (
            &[
                NETWORK,
                "OUT",
                "--for",
                "int8",
                "--seed",
                "7",
                "--samples",
                "2",
                "--tolerance",
                "0.5",
                "--skip",
                "0",
                "--input-shape",
                "x=8,3,32,32",
            ],
            0,
            &[
                ("/options/keep_identity", json!("auto")),
                ("/options/equalize", json!("best")),
                ("/options/samples", json!(2)),
                ("/options/skip", json!(["0"])),
                ("/options/input_shapes", json!([{"input": "x", "shape": [8, 3, 32, 32]}])),
                ("/seeds/run", json!(7)),
                ("/tolerances/float16", json!(0.5)),
            ],
        ),
        (
            &[NETWORK, "OUT", "--no-verify"],
            0,
            &[
                ("/mode", json!("unverified")),
                ("/blocks/0/proof", Value::Null),
                ("/run", Value::Null),
                ("/verdict", json!("NOT VERIFIED")),
            ],
        ),
        (
            &[NETWORK, "OUT", "--tolerance", "0"],
            3,
            &[
                ("/outcome", json!("failed")),
                ("/error/exit_code", json!(3)),
                ("/output", Value::Null),
                ("/run/outcome", json!("differs")),
            ],
        ),
        (&[PLAIN, "OUT"], 0, &[("/outcome", json!("written")), ("/blocks", json!([]))]),
        (&[PLAIN, "OUT", "--require-fusion"], 4, &[("/outcome", json!("failed"))]),
        (&[BLOCK, "--check"], 5, &[("/outcome", json!("looked")), ("/error/exit_code", json!(5))]),
        (
            &[strides, "OUT"],
            0,
            &[
                ("/near_misses/0/kind", json!("geometry")),
                ("/near_misses/0/help", json!("Nothing: they are not one convolution.")),
            ],
        ),
        (&[BLOCK, "--skip", "26"], 0, &[("/near_misses/0/help", json!("Leave out `--skip`."))]),
        (
            &[unrunnable, "OUT"],
            0,
            &[
                ("/run/outcome", json!("not_run")),
                ("/verdict", json!("proved, NOT RUN")),
                ("/sizes/before/multiply_adds", Value::Null),
            ],
        ),
        (
            &[unrunnable, "OUT", "--require-run"],
            7,
            &[("/outcome", json!("failed")), ("/run/outcome", json!("not_run"))],
        ),
        (
            &[broken, "OUT"],
            1,
            &[
                ("/outcome", json!("failed")),
                ("/input/bytes", Value::Null),
                ("/versions/opset", Value::Null),
            ],
        ),
        (&["no/such/file.onnx", "OUT"], 8, &[("/input/sha256", Value::Null)]),
        (&["fixtures/relatives/dbb/dynamo_folded_static.onnx", "OUT"], 0, &[]),
        (
            &["fixtures/blocks/transposed_stride2_output_padding/dynamo.onnx", "OUT"],
            0,
            &[("/blocks/0/geometry/0/transposed", json!(true))],
        ),
        (&[gemm, "OUT"], 0, &[]),
    ];
    for (arguments, code, values) in cases {
        let (report, found) = reported(arguments);
        assert_eq!(found, *code, "{arguments:?}");
        is_valid(&report).unwrap_or_else(|why| panic!("{arguments:?}: {why}"));
        for (pointer, value) in *values {
            assert_eq!(report.pointer(pointer), Some(value), "{arguments:?}: {pointer}");
        }
        for block in report["blocks"].as_array().unwrap() {
            let made = |key: &str| block[key].as_array().map(Vec::len);
            let kernels = made("geometry").filter(|_| made("new_nodes") != Some(0));
            assert_eq!(made("weights"), kernels, "{arguments:?}: one comparison per kernel");
        }
    }
}

#[test]
fn what_the_schema_does_not_describe_is_not_valid() {
    let (report, _) = reported(&[BLOCK, "OUT"]);
    type Spoil = fn(&mut Value);
    let cases: &[(&str, Spoil)] = &[
        ("a key too many", |report| report["blocks"][0]["colour"] = json!("red")),
        ("a key too few", |report| drop(report.as_object_mut().unwrap().remove("run"))),
        ("another version", |report| report["schema"] = json!(3)),
        ("an unknown outcome", |report| report["run"]["outcome"] = json!("fine")),
        ("a text for a number", |report| report["blocks"][0]["norms"] = json!("3")),
        ("half a pad", |report| report["blocks"][0]["geometry"][0]["pads"][0] = json!([1])),
        ("no hash", |report| report["input"]["sha256"] = json!("abc")),
        ("a negative count", |report| report["notes"]["removed_inputs"] = json!(-1)),
    ];
    for (case, spoil) in cases {
        let mut spoiled = report.clone();
        spoil(&mut spoiled);
        assert!(is_valid(&spoiled).is_err(), "{case}");
    }
}

/// Every key has a description: whoever reads the schema needs nothing else.
#[test]
fn every_key_is_described() {
    fn check(schema: &Value, at: &str) {
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            assert!(inner["description"].is_string(), "{at}/{key}");
            check(inner, &format!("{at}/{key}"));
        }
    }
    let schema = schema();
    check(&schema, "");
    for (name, inner) in schema["$defs"].as_object().unwrap() {
        check(inner, name);
    }
}

#[test]
fn hashes_and_sizes_are_those_of_the_files() {
    use sha2::{Digest, Sha256};
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let result = output(&[NETWORK, out.to_str().unwrap(), "--report", "-", "--quiet"]);
    let report: Value = serde_json::from_slice(&result.stdout).unwrap();
    for (file, path) in [("input", Path::new(NETWORK)), ("output", &out)] {
        let bytes = fs::read(path).unwrap();
        let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(report[file]["sha256"], json!(hash));
        assert_eq!(report[file]["bytes"], json!(bytes.len()));
        assert_eq!(report[file]["path"], json!(path.to_str().unwrap()));
    }
}

#[test]
fn a_report_on_standard_output_is_alone_there() {
    let (folder, model) = (tempfile::tempdir().unwrap(), "out.onnx");
    let out = folder.path().join(model);
    let out = out.to_str().unwrap();
    let result = output(&[NETWORK, out, "--report", "-"]);
    assert!(serde_json::from_slice::<Value>(&result.stdout).is_ok());
    assert!(String::from_utf8(result.stderr).unwrap().contains("3 blocks fused"));
    let json = folder.path().join("model.json");
    let json = json.to_str().unwrap();
    for arguments in [
        &[NETWORK, "-", "--report", "-"][..],
        &[NETWORK, json, "--report", json],
        &[json, out, "--report", json],
        &[NETWORK, out, "--report", "report.txt"],
    ] {
        assert_eq!(output(arguments).status.code(), Some(2), "{arguments:?}");
    }
    // This is found before any work is done.
    let missing = output(&[NETWORK, out, "--report", "no/such/folder/report.json"]);
    assert_eq!(missing.status.code(), Some(8));
}

/// Many models have a line each, those that failed included.
#[test]
fn many_models_have_a_line_each() {
    let folder = tempfile::tempdir().unwrap();
    let [out, lines] = ["out", "all.jsonl"].map(|name| folder.path().join(name));
    let [out, lines] = [&out, &lines].map(|path| path.to_str().unwrap());
    let report = ["--report", lines];
    let models = [NETWORK, "no/such/file.onnx", BLOCK];
    let result = output(&[&["--out-dir", out][..], &report, &models].concat());
    assert_eq!(result.status.code(), Some(8));
    let text = fs::read_to_string(lines).unwrap();
    let reports: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (report, (model, outcome)) in
        reports.iter().zip(models.iter().zip(["written", "failed", "written"]))
    {
        is_valid(report).unwrap();
        assert_eq!(
            (&report["input"]["path"], &report["outcome"]),
            (&json!(model), &json!(outcome))
        );
    }
    assert_eq!(reports.len(), 3);
    for arguments in
        [&["--out-dir", out, "--report", "all.json", BLOCK][..], &["--report", "one.jsonl", BLOCK]]
    {
        assert_eq!(output(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

/// The page is one file, escaped, without anything that a browser would fetch or run.
#[test]
fn the_page_needs_nothing_and_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [model, page] = ["<script>.onnx", "report.html"].map(|name| folder.path().join(name));
    let mut bytes = fs::read(BLOCK).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - 6).filter(|&at| &bytes[at..at + 6] == b"square").collect();
    assert_eq!(places.len(), 16);
    for at in places {
        bytes[at..at + 6].copy_from_slice(b"<img/>");
    }
    fs::write(&model, bytes).unwrap();
    let out = folder.path().join("out.onnx");
    let [model, out, html] = [&model, &out, &page].map(|path| path.to_str().unwrap());
    assert!(output(&[model, out, "--report", html]).status.success());
    let text = fs::read_to_string(&page).unwrap();
    for absent in ["<img", "<script", "src=", "http://", "https://", "url(", "@import", "<link"] {
        assert!(!text.contains(absent), "{absent}");
    }
    assert!(text.contains("<code>acb-fuse ") && text.contains(" UTC</p>"));
    for present in ["default-src 'none'", "&lt;script&gt;.onnx", "&lt;img/&gt;", "<svg", "3×3"] {
        assert!(text.contains(present), "{present}");
    }
}

#[test]
fn verbose_shows_the_average_kernel_and_hints_come_where_it_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let out = out.to_str().unwrap();
    let said = |arguments: &[&str]| String::from_utf8(output(arguments).stdout).unwrap();
    let verbose = said(&[NETWORK, out, "--verbose"]);
    assert!(verbose.contains("average magnitude of 3 fused 5×5 kernels, largest 1:"), "{verbose}");
    // Standard output is no terminal: numbers are shown instead of colours.
    assert!(!verbose.contains('\u{1b}'), "{verbose}");
    assert!(!said(&[NETWORK, out]).contains("average"));
    for (network, expected) in [
        ("acnet_quick", None),
        (
            "repvgg",
            Some(
                "quantization: poor weights in 4 of 7 blocks; in `f/f.4`, int8 weights are at \
                 24.0 dB instead of 35.6 dB with one step per tensor, 27.8 dB per channel: the \
                 identity holds the largest weight in 64 of 64 filters (--keep-identity auto helps)",
            ),
        ),
    ] {
        let model = format!("fixtures/trained/{network}/folded.onnx");
        let hinted = said(&[&model, out, "--force", "--verbose"]);
        let hint = hinted.lines().find(|line| line.starts_with("quantization: "));
        assert_eq!(hint, expected, "{hinted}");
        let kept = said(&[&model, out, "--force", "--verbose", "--for", "int8"]);
        assert!(!kept.contains("quantization: "), "{kept}");
    }
}
