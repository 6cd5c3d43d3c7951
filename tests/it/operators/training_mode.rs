//! Batch norms and dropouts in training mode: which are converted, what is said of them, and
//! what the new file computes.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use acb_fuse::engine::{Array, Constant, InputShapes, Limits, dialect, tensors};
use acb_fuse::facts::constants::Constants;
use acb_fuse::facts::shapes::Sizes;
use acb_fuse::facts::validity::Validity;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::NodeProto;
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use acb_fuse::onnx::write::{self, double_input, int, node};
use acb_fuse::report::Report;
use acb_fuse::verify::claim::{Claim, Side, Unproved};
use acb_fuse::verify::compare::relative_error;
use acb_fuse::verify::float_types::FloatTypes;
use acb_fuse::verify::original::Original;
use acb_fuse::verify::outcome::{Agreement, Outcome};
use acb_fuse::verify::proof::prove;
use acb_fuse::verify::run::run;
use acb_fuse::verify::sliced_run::{Bridges, SLICE_LIMITS, SlicedRun};
use acb_fuse::{RunOptions, TrainingMode};
use prost::Message;

use crate::support::fixtures;
use crate::support::fixtures::data;
use crate::support::tool::{self, looked, options};

const AUTO: (TrainingMode, &str) = (TrainingMode::Auto, "auto");
const CONVERT: (TrainingMode, &str) = (TrainingMode::Convert, "convert");
const KEEP: (TrainingMode, &str) = (TrainingMode::Keep, "keep");

const PLACEHOLDERS: &str = "its stored means are all 0 and its variances all 1, as before any \
                            training (converting all such nodes uses them all the same)";
const SAME: &str = "its input is the same for every input of the model";
const KEPT: &str = "it stays in training mode because of the option that keeps such nodes";
const USED: &str = "its training outputs are used";
const INLINED: &str = "norm.inlined/BatchNormalization_0";
const INLINED_2: &str = "norm_2.inlined/BatchNormalization_0";

/// A file, and what is converted of it under one setting.
struct Row {
    case: &'static str,
    setting: (TrainingMode, &'static str),
    /// Nodes that are converted.
    converted: &'static [&'static str],
    /// The number of blocks that are fused.
    blocks: usize,
    /// Nodes that stay in training mode, and what is said of each.
    stays: &'static [(&'static str, &'static str)],
}

const fn row(
    case: &'static str,
    setting: (TrainingMode, &'static str),
    converted: &'static [&'static str],
    blocks: usize,
    stays: &'static [(&'static str, &'static str)],
) -> Row {
    Row { case, setting, converted, blocks, stays }
}

/// Cases that lie in `wrong_files`.
const GIVEN: [&str; 2] = ["norm_of_a_constant", "instance_norm_as_norm"];

const ROWS: &[Row] = &[
    // The norm standardizes a kernel: a constant under every setting.
    row("norm_of_a_constant", AUTO, &[], 1, &[]),
    row("norm_of_a_constant", CONVERT, &[], 1, &[]),
    row("norm_of_a_constant", KEEP, &[], 1, &[]),
    row("instance_norm_as_norm", AUTO, &[], 0, &[("/BatchNormalization_10", PLACEHOLDERS)]),
    row("instance_norm_as_norm", CONVERT, &["/BatchNormalization_10"], 1, &[]),
    row("instance_norm_as_norm", KEEP, &[], 0, &[("/BatchNormalization_10", KEPT)]),
    row("norm_of_an_input", AUTO, &["n"], 0, &[]),
    row("norm_of_an_input", KEEP, &[], 0, &[("n", KEPT)]),
    row("placeholders", AUTO, &[], 0, &[("p", PLACEHOLDERS)]),
    row("placeholders", CONVERT, &["p"], 0, &[]),
    row("one_statistic_is_real", AUTO, &["a", "b"], 0, &[]),
    row("ranks", AUTO, &[], 0, &[("a", PLACEHOLDERS), ("b", PLACEHOLDERS)]),
    row("ranks", CONVERT, &["a", "b"], 0, &[]),
    row("kernels_of_a_block_are_normed", AUTO, &["hn"], 1, &[]),
    row("kernels_of_a_block_are_normed", KEEP, &[], 1, &[("hn", KEPT)]),
    row("kernel_is_normed_with_real_statistics", AUTO, &[], 1, &[]),
    row("kernel_is_normed_with_real_statistics", CONVERT, &[], 1, &[]),
    row("kernel_is_normed_in_opset_9", AUTO, &["n"], 1, &[]),
    row("kernel_is_normed_in_opset_9", KEEP, &[], 1, &[("n", KEPT)]),
    row("kernel_of_float16_is_normed", AUTO, &[], 0, &[]),
    row("normed_constant_is_not_computed", AUTO, &[], 0, &[("c", SAME)]),
    row("normed_constant_is_not_computed", CONVERT, &[], 0, &[("c", SAME)]),
    row("size_of_an_input_is_normed", CONVERT, &[], 0, &[("c", SAME)]),
    row("statistics_are_computed", AUTO, &["a"], 0, &[("b", "`mean` is not constant")]),
    row("statistics_are_computed", CONVERT, &["a"], 0, &[("b", "`mean` is not constant")]),
    row("statistics_are_shared", AUTO, &["n"], 1, &[("p", PLACEHOLDERS)]),
    row("statistics_are_shared", CONVERT, &["n", "p"], 1, &[]),
    row("running_statistics_are_outputs", AUTO, &["m"], 0, &[("n", USED)]),
    row("running_statistics_are_outputs", CONVERT, &["m"], 0, &[("n", USED)]),
    row("running_statistics_are_outputs", KEEP, &[], 0, &[("n", USED), ("m", KEPT)]),
    row("statistics_are_inputs_too", AUTO, &["n"], 0, &[]),
    row("opset_13", AUTO, &["n"], 0, &[("p", PLACEHOLDERS)]),
    row("opset_13", CONVERT, &["n", "p"], 0, &[]),
    row("opset_13", KEEP, &[], 0, &[("n", KEPT), ("p", KEPT)]),
    row("opset_6", AUTO, &["n"], 0, &[("p", PLACEHOLDERS)]),
    row("opset_6", CONVERT, &["n", "p"], 0, &[]),
    row("opset_6", KEEP, &[], 0, &[("n", KEPT), ("p", KEPT)]),
    row("dropout_beside_placeholders", AUTO, &["d"], 0, &[("p", PLACEHOLDERS)]),
    row("dropout_beside_placeholders", CONVERT, &["d", "p"], 0, &[]),
    row("dropout_beside_placeholders", KEEP, &[], 0, &[("d", KEPT), ("p", KEPT)]),
    row("dropout_behind_a_block", AUTO, &["y"], 1, &[]),
    row("dropout_behind_a_block", KEEP, &[], 1, &[("y", KEPT)]),
    row("several_norms", AUTO, &["n"], 1, &[("p", PLACEHOLDERS), ("u", USED)]),
    row("several_norms", CONVERT, &["n", "p"], 2, &[("u", USED)]),
    row("several_norms", KEEP, &[], 1, &[("n", KEPT), ("p", KEPT), ("u", USED)]),
    row("norms_in_a_body", AUTO, &["n"], 0, &[("p", PLACEHOLDERS)]),
    row("norms_in_a_body", CONVERT, &["n", "p"], 1, &[]),
    row("norms_in_loops", AUTO, &["n"], 0, &[("q", SAME)]),
    row("norms_in_loops", KEEP, &[], 0, &[("n", KEPT), ("q", SAME)]),
    row("norms_in_a_function", AUTO, &[INLINED], 0, &[(INLINED_2, PLACEHOLDERS)]),
    row("norms_in_a_function", CONVERT, &[INLINED, INLINED_2], 0, &[]),
    row("norms_in_a_function", KEEP, &[], 0, &[(INLINED, KEPT), (INLINED_2, KEPT)]),
];

fn model_of(case: &str) -> PathBuf {
    let group = if GIVEN.contains(&case) { "wrong_files" } else { "training_mode" };
    Path::new("fixtures").join(group).join(case).join("model.onnx")
}

fn converted(from: &Path, to: &Path, training_mode: TrainingMode) -> Report {
    tool::converted(from, to, &options(|options| options.training_mode = training_mode))
}

fn indexed(path: &Path) -> Model {
    Model::index(fs::read(path).unwrap().into(), Storage::default()).unwrap()
}

/// Returns what the engine computes of a model for a case's inputs, every node in its own mode.
fn outputs(path: &Path, inputs: &[Array]) -> Result<Vec<Array>, String> {
    let model = indexed(path);
    let read = Graph::read_all(&model).unwrap();
    let flat = dialect::flattened(&model, &read).unwrap();
    let graphs = Graph::read_all(flat.as_ref().unwrap_or(&model)).unwrap();
    let names: Vec<String> = graphs[0].inputs().into_iter().map(|(name, _)| name).collect();
    let types = names.iter().map(|name| graphs[0].input_type(graphs[0].find(name).unwrap()));
    let fed = inputs.iter().cloned().zip(types.map(Option::unwrap_or_default)).collect();
    let limits = Limits::of_reading();
    let fed = tensors::from_arrays(fed, limits).map_err(|error| error.to_string())?;
    let bridges = Bridges::default();
    let types = FloatTypes::of(&graphs).unwrap();
    let sliced = SlicedRun::of(&graphs, &types, &names, &[fed], &bridges).unwrap();
    let outputs = sliced.outputs(SLICE_LIMITS, limits).map_err(|stopped| stopped.to_string())?;
    Ok(outputs.into_iter().next().unwrap())
}

/// Compares `found` with the right outputs of a case, within the rounding of its type.
fn compare(case: &str, what: &str, expected: &[Array], found: &[Array]) {
    let allowed = if case.contains("float16") { 2e-3 } else { 2e-6 };
    assert_eq!(expected.len(), found.len(), "{case}, {what}");
    for (expected, found) in expected.iter().zip(found) {
        let error = relative_error(expected, found);
        assert!(error <= allowed, "{case}, {what}: {error:e}");
    }
}

/// The engine runs a norm in training mode as such: its outputs are those of ONNX Runtime,
/// running statistics included.
#[test]
fn what_stays_in_training_mode_is_run_so() {
    let cases = fixtures::models("training_mode").into_iter().chain(GIVEN.map(model_of));
    let compared = cases.filter(|model| {
        let case = model.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let (expected, found) = (data(model, "output"), outputs(model, &data(model, "input")));
        // No two runs of a dropout are alike, and the engine has no loops.
        let runs = !case.starts_with("dropout") && case != "norms_in_loops";
        assert_eq!((found.is_ok(), expected.is_empty()), (runs, case.starts_with("dropout")));
        if let Ok(found) = &found {
            compare(case, "as it stands", &expected, found);
        }
        found.is_ok()
    });
    assert_eq!(compared.count(), 21);
}

#[test]
fn what_is_converted_is_said_and_right() {
    for Row { case, setting: (mode, setting), converted: names, blocks, stays } in ROWS {
        let model = model_of(case);
        let folder = tempfile::tempdir().unwrap();
        let [once, twice] = ["once.onnx", "twice.onnx"].map(|name| folder.path().join(name));
        let report = converted(&model, &once, *mode);
        let what = format!("{case}, {setting}");

        let converted_nodes = report.notes.converted_nodes.iter().map(|node| node.node.as_str());
        assert_eq!(converted_nodes.collect::<Vec<_>>(), *names, "{what}");
        assert_eq!(report.notes.inferred_nodes, names.len(), "{what}");
        assert_eq!(report.blocks.len(), *blocks, "{what}");
        let text = report.to_string();
        let said = text.contains("the file computed something else before");
        assert_eq!(said, !names.is_empty(), "{text}");
        assert_eq!(text.contains("nothing to fuse"), names.is_empty() && *blocks == 0, "{text}");
        for name in *names {
            assert!(text.contains(&format!("  {name}: ")), "{text}");
        }
        let stay = report.near_misses.iter().map(|miss| (&miss.node, miss.reason.to_string()));
        let stay: Vec<_> = stay.collect();
        for (node, why) in *stays {
            assert!(stay.iter().any(|(n, said)| *n == node && said.contains(why)), "{stay:?}");
        }
        let trains = |(node, _): &&(&String, String)| !stays.iter().any(|(name, _)| name == node);
        let further = stay.iter().filter(|(_, said)| said.contains("training"));
        let further: Vec<_> = further.filter(trains).filter(|(n, _)| *n != "y").collect();
        assert!(further.is_empty(), "{what}: {further:?}");

        let expected = match data(&model, setting) {
            right if right.is_empty() => data(&model, "output"),
            right => right,
        };
        match outputs(&once, &data(&model, "input")) {
            Ok(found) => compare(case, setting, &expected, &found),
            // A dropout that stays is bridged in the run, and what no change reaches is not
            // compared.
            Err(_) => {
                let is_whole = |run: &Agreement| run.bridged.is_empty() && !run.errors.is_empty();
                let agrees = matches!(&report.run, Some(Outcome::Agreed(run)) if is_whole(run));
                assert!(!agrees, "{what}: {:?}", report.run);
            }
        }

        converted(&once, &twice, *mode);
        assert!(fs::read(&once).unwrap() == fs::read(&twice).unwrap(), "{what}: not at once");
    }
    let tried = |case: &&Path| ROWS.iter().any(|row| model_of(row.case) == **case);
    let cases = fixtures::models("training_mode");
    assert!(cases.iter().map(PathBuf::as_path).all(|case| tried(&case)), "a case has no row");
}

/// Statistics that a caller may override are not taken as constant if overriding is to be kept.
#[test]
fn overridable_statistics_stay_if_that_is_asked_for() {
    let options = options(|options| options.keep_overridable = true);
    let report = looked(&model_of("statistics_are_inputs_too"), &options);
    assert_eq!(report.notes.inferred_nodes, 0);
    assert!(report.to_string().contains("a caller may override it"), "{report}");
}

/// `--check`, `--require-fusion`, and `--require-run` for a random model.
#[test]
fn exit_codes_count_conversions() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let out = out.to_str().unwrap();
    for (case, arguments, code, said) in [
        ("norm_of_an_input", &["--check"][..], 5, "1 node in training mode can be converted"),
        (
            "several_norms",
            &["--check", "--training-mode", "convert"],
            5,
            "2 blocks can be fused, 2 nodes in training mode can be converted",
        ),
        ("kernel_is_normed_with_real_statistics", &["--check"], 5, "1 block can be fused"),
        ("norm_of_an_input", &["--check", "--training-mode", "keep"], 0, "nothing to fuse"),
        // A conversion is no fusion.
        ("norm_of_an_input", &[out, "--require-fusion"], 4, "nothing was fused"),
        ("norm_of_an_input", &[out, "--require-run"], 0, "no block to fuse"),
        ("dropout_behind_a_block", &[out, "--require-run"], 0, "1 block fused"),
        (
            "dropout_behind_a_block",
            &[out, "--require-run", "--training-mode", "keep"],
            0,
            "behind 1 node that tract cannot run (`y`)",
        ),
        ("norm_of_an_input", &["--training-mode", "off"], 2, "auto, convert, keep"),
    ] {
        let output = tool::tool().arg(model_of(case)).args(arguments).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{case} {arguments:?}: {text}");
        assert!(text.contains(said), "{case} {arguments:?}: {text}");
    }
}

/// Neither the run nor a proof mistakes a norm in training mode for one at inference.
#[test]
fn a_wrong_mode_is_caught() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let converted_norm = model_of("norm_of_an_input");
    converted(&converted_norm, &out, TrainingMode::Auto);
    let options = RunOptions::default();
    let compare = |old: &Path, new: &Path| {
        run(&indexed(old), &indexed(new), &options, Limits::of_reading()).unwrap()
    };
    assert!(matches!(compare(&converted_norm, &out), Outcome::Differs { .. }));
    assert!(matches!(compare(&converted_norm, &converted_norm), Outcome::Agreed(_)));

    let vector = |name: &str, value: f64| {
        let values = ndarray::ArrayD::from_elem(vec![3], value);
        tensor::from_floats(name, &values, Float::F64).into()
    };
    let constants = || {
        let all = [("scale", 2.0), ("bias", 0.5), ("mean", 0.1), ("variance", 0.4)];
        all.map(|(name, value)| vector(name, value)).to_vec()
    };
    let norm = |outputs: &[&str], mode: Option<(&str, i64)>| NodeProto {
        output: outputs.iter().map(|&name| name.to_owned()).collect(),
        attribute: mode.into_iter().map(|(name, value)| int(name, value)).collect(),
        ..node("BatchNormalization", "", &["x", "scale", "bias", "mean", "variance"], "", vec![])
    };
    for (opset, trains, evaluates) in [
        (6, norm(&["y"], Some(("is_test", 0))), norm(&["y"], Some(("is_test", 1)))),
        (9, norm(&["y", "m", "v", "sm", "sv"], None), norm(&["y"], None)),
        (15, norm(&["y", "m", "v"], Some(("training_mode", 1))), norm(&["y"], None)),
        (20, norm(&["y"], Some(("training_mode", 1))), norm(&["y"], Some(("training_mode", 0)))),
    ] {
        let proved = |old: &NodeProto, converts: bool| {
            let stored = constants().into_iter().map(|constant: Constant| constant.header);
            let stored = stored.collect();
            let inputs = vec![double_input("x", 4)];
            let file = write::model(opset, inputs, vec![old.clone()], stored, &["y"]);
            let model = Model::index(file.encode_to_vec().into(), Storage::default()).unwrap();
            let graphs = Graph::read_all(&model).unwrap();
            let (graph, shapes) = (&graphs[0], InputShapes::new());
            let constants_of_file = Constants::find_all(&graphs, false).unwrap();
            let sizes = Sizes::new(graph, &constants_of_file[0], &shapes);
            let norm = graph.nodes().map(|(id, _)| (id, evaluates.clone()));
            let converted = norm.filter(|_| converts).collect();
            let original = Original::new(graph, &constants_of_file[0], &sizes, None, converted);
            let new = Side { nodes: vec![evaluates.clone()], constants: constants() };
            let claim = Claim {
                output: graph.find("y").unwrap(),
                roots: vec![graph.find("x").unwrap()],
                valid: Validity::default(),
                borders: vec![],
                turned: vec![],
                new,
            };
            prove(&original, &claim, Limits::new(Duration::from_secs(60), 1 << 30))
        };
        // A node that is not converted computes in training mode, and is taken for nothing else.
        let wrong = proved(&trains, false);
        assert!(matches!(wrong, Err(Unproved::Trains(_))), "opset {opset}: {wrong:?}");
        for (old, converts) in [(&trains, true), (&evaluates, false)] {
            let right = proved(old, converts);
            assert!(right.is_ok(), "opset {opset}: {old:?} {right:?}");
        }
    }
}
