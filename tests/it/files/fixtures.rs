//! Real exported files, end to end.
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use acb_fuse::Options;
use acb_fuse::onnx::proto::tensor_proto::DataType;
use acb_fuse::report::BlockReport;
use acb_fuse::verify::compare::relative_error;
use acb_fuse::verify::outcome::Outcome;
use expect_test::expect_file;

use crate::support::counts;
use crate::support::counts::{multiply_adds, operators, parameters};
use crate::support::engine::run;
use crate::support::fixtures::{self, data, deployed_twin, models};
use crate::support::results;
use crate::support::tool::{converted, fused, looked};

/// What the tool says of each file is stored beside it. `UPDATE_EXPECT=1 cargo test` writes it
/// anew.
#[test]
fn every_file_is_reported_as_expected() {
    for model in fixtures::of(|group| group.reported) {
        let report = looked(&model, &Options::default());
        let path = std::env::current_dir().unwrap().join(model.with_extension("txt"));
        expect_file![path].assert_eq(&report.to_string());
    }
}

/// The number of network files that have a deployed twin.
const NETWORKS: usize = 78;

/// Files that tract runs neither before nor after the conversion.
const NOT_RUN: [&str; 22] = [
    "dropout_mask_is_output/model.onnx",
    "ends_of_activations/model.onnx",
    "foreign_add/model.onnx",
    "foreign_conv/model.onnx",
    "foreign_norm/model.onnx",
    "function_of_other_opset/model.onnx",
    "kernel_not_evaluated/model.onnx",
    "kernel_through_bfloat16/model.onnx",
    "loop_body/model.onnx",
    "no_operator_of_onnx/model.onnx",
    "opset6_dropout_mask_is_output/model.onnx",
    "pool_of_a_border_alone/model.onnx",
    "quantized_kernel_in_another_order/model.onnx",
    "quantized_kernels/model.onnx",
    "resized_by_cubic_terms/model.onnx",
    "sequences_have_no_common_name/model.onnx",
    "statistic_is_computed/model.onnx",
    "step_beyond_its_axes/model.onnx",
    "upsampled_between/model.onnx",
    "upsampled_by_one/model.onnx",
    "tensorflow_net_valid/unoptimised_dynamic.onnx",
    "tensorflow_net_valid/unoptimised_static.onnx",
];

/// The files among these that tract runs slice by slice: a slice takes the results of earlier
/// slices as constants.
const IN_SLICES: [&str; 1] = ["statistic_is_computed/model.onnx"];

/// Outputs are the framework's own float64 outputs within float32 rounding. A network's largest
/// error is at most twice that of the unfused graph or of its deployed twin, and in the median
/// not larger than that of the unfused graph.
#[test]
fn outputs_are_the_frameworks_own() {
    let mut ratios = Vec::new();
    let (mut compared, mut not_run) = (0, Vec::new());
    for model in fixtures::of(|group| group.compared) {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.onnx");
        let report = fused(&model, &output);
        let (inputs, expected) = (data(&model, "input"), data(&model, "output"));
        let beside = model.parent().unwrap();
        // tract reads a few originals wrongly or not at all; then the fused file is
        // held to what float32 allows.
        let before = run(&model, beside, &inputs).map(|found| largest_error(&expected, &found));
        let twin = deployed_twin(&model).map(|twin| run(&twin, beside, &inputs));
        let after = run(&output, folder.path(), &inputs);
        if let (Err(before), Err(after)) = (&before, &after) {
            let is_whole =
                |run: &Outcome| matches!(run, Outcome::Agreed(agreed) if agreed.bridged.is_empty());
            let agrees = report.run.as_ref().is_some_and(is_whole);
            let may_agree = IN_SLICES.contains(&short(&model).as_str());
            assert!(may_agree || !agrees, "{model:?}: {before} {after}");
            not_run.push(short(&model));
            continue;
        }
        let after =
            largest_error(&expected, &after.unwrap_or_else(|error| panic!("{model:?}: {error}")));
        compared += 1;
        match (before, twin) {
            (Ok(before), Some(Ok(twin))) => {
                // How weights happen to be rounded weighs as much as fusing does: the
                // twin, whose weights were fused and rounded elsewhere, may be further
                // off than the unfused graph.
                let twin = largest_error(&expected, &twin);
                assert!(after <= 2.0 * twin.max(before), "{model:?}: {before:e} became {after:e}");
                if after > 2.0 * before {
                    println!("{model:?}: unfused {before:.1e}, fused {after:.1e}, twin {twin:.1e}");
                }
                ratios.push((after / twin.max(before), after / before));
            }
            // A single block may be exact to the last bit by luck, so its error is no
            // yardstick: a float32 sum of a few hundred products is.
            _ => {
                let allowed = match DataType::try_from(counts::output_type(&model)) {
                    Ok(DataType::Float16) => 2e-3,
                    // Weights are rounded to eight bits: half a unit in the last place is 2e-3.
                    Ok(DataType::Bfloat16) => 1e-2,
                    _ => 1e-6,
                };
                assert!(after <= allowed, "{model:?}: {after:e}");
            }
        }
    }
    let median = |mut ratios: Vec<f64>| {
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
    let count = ratios.len();
    let (to_both, to_unfused): (Vec<f64>, Vec<f64>) = ratios.into_iter().unzip();
    let (to_both, to_unfused) = (median(to_both), median(to_unfused));
    println!(
        "{compared} files; {count} networks, fused error in the median {to_unfused:.2} × unfused, {to_both:.2} × the larger of unfused and twin"
    );
    // Every file is compared, or listed as not run.
    assert_eq!(count, NETWORKS);
    assert!(to_unfused <= 1.0, "{to_unfused}");
    assert_eq!(not_run, NOT_RUN);
}

/// Returns `case/file`.
fn short(model: &Path) -> String {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    format!("{}/{}", name(model.parent().unwrap()), name(model))
}

fn largest_error(expected: &[acb_fuse::engine::Array], found: &[acb_fuse::engine::Array]) -> f64 {
    assert_eq!(expected.len(), found.len());
    let errors =
        expected.iter().zip(found).map(|(expected, found)| relative_error(expected, found));
    errors.fold(0.0, f64::max)
}

/// After fusing, each of the paper's networks has the operators and parameters of its plain
/// architecture with the batch norms folded, or fewer.
#[test]
fn networks_become_their_plain_architecture() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.onnx");
    let mut table = String::from(
        "| network | file | blocks | nodes | Conv | plain Conv | parameters | plain parameters |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for model in models("networks") {
        let plain = model.with_file_name("plain.onnx");
        let report = fused(&model, &output);
        let (found, expected) = (operators(&output), operators(&plain));
        for operator in ["Conv", "BatchNormalization", "Add", "Mul", "Slice", "Pad"] {
            let count = |counts: &std::collections::BTreeMap<String, usize>| {
                counts.get(operator).copied().unwrap_or(0)
            };
            assert!(
                count(&found) <= count(&expected),
                "{model:?}: {} {operator} instead of {}",
                count(&found),
                count(&expected)
            );
        }
        assert_eq!(found.get("Conv"), expected.get("Conv"), "{model:?}");
        assert!(
            parameters(&output) <= parameters(&plain),
            "{model:?}: {} parameters instead of {}",
            parameters(&output),
            parameters(&plain)
        );
        let name = |path: Option<&std::ffi::OsStr>| path.unwrap().to_str().unwrap().to_owned();
        writeln!(
            table,
            "| {} | {} | {} | {} → {} | {} → {} | {} | {} → {} | {} |",
            name(model.parent().unwrap().file_name()),
            name(model.file_stem()),
            report.blocks.len(),
            report.sizes.before.nodes.unwrap(),
            report.sizes.after.nodes.unwrap(),
            operators(&model)["Conv"],
            found["Conv"],
            expected["Conv"],
            parameters(&model),
            parameters(&output),
            parameters(&plain)
        )
        .unwrap();
    }
    assert_eq!(table.lines().count(), 30);
    results::hold("networks", &table);
}

/// Counts of a file: nodes, convolutions, norms, additions, parameters and multiply-adds.
struct Counts([f64; 6]);

impl Counts {
    fn of(model: &Path, shapes: &[Vec<usize>]) -> Self {
        let operators = operators(model);
        let count = |operator: &str| operators.get(operator).copied().unwrap_or(0) as f64;
        Counts([
            operators.values().sum::<usize>() as f64,
            count("Conv"),
            count("BatchNormalization"),
            count("Add"),
            parameters(model) as f64,
            multiply_adds(model, shapes).unwrap_or(f64::NAN),
        ])
    }

    fn no_more_than(&self, other: &Counts) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, theirs)| mine <= theirs)
    }

    /// Returns `exported → fused, deployed` for each count.
    fn cells(exported: &Counts, fused: &Counts, deployed: &Counts) -> String {
        let text = |count: f64| match count {
            count if count.is_nan() => "?".to_owned(),
            count if count >= 1e6 => format!("{:.2} M", count / 1e6),
            count => format!("{count:.0}"),
        };
        let counts = exported.0.iter().zip(fused.0.iter().zip(&deployed.0));
        let cells = counts.map(|(&a, (&b, &c))| format!("{} → {}, {}", text(a), text(b), text(c)));
        cells.collect::<Vec<_>>().join(" | ")
    }
}

/// After fusing, no count of a relative is larger than in the model that its own library or its
/// authors' formulas make of it.
#[test]
fn relatives_become_what_their_libraries_make_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.onnx");
    let mut table = String::from(
        "| network | file | nodes | Conv | BatchNormalization | Add | parameters | multiply-adds |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for model in models("relatives") {
        let inputs = data(&model, "input");
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|input| input.shape().to_vec()).collect();
        let counts = |path: &Path| Counts::of(path, &shapes);
        let deployed = counts(&deployed_twin(&model).unwrap());
        let mut name = model.file_stem().unwrap().to_str().unwrap().to_owned();
        fused(&model, &output);
        if !counts(&output).no_more_than(&deployed) {
            // TorchScript bakes the sizes of assigned borders in, whatever shapes it declares.
            let mut options = Options::default();
            options.run.shapes.insert("x".to_owned(), shapes[0].clone());
            converted(&model, &output, &options);
            name.push_str(" with `--input-shape`");
        }
        let found = counts(&output);
        assert!(found.no_more_than(&deployed), "{model:?}: {:?}, not {:?}", found.0, deployed.0);
        let case = model.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let cells = Counts::cells(&counts(&model), &found, &deployed);
        writeln!(table, "| {case} | {name} | {cells} |").unwrap();
    }
    assert_eq!(table.lines().count(), 52);
    results::hold("relatives", &table);
}

#[test]
fn side_files_follow_into_another_folder() {
    let model = models("networks").into_iter().find(|model| {
        let beside = fs::read_dir(model.parent().unwrap()).unwrap();
        let name = format!("{}.data", model.file_name().unwrap().to_str().unwrap());
        beside.into_iter().any(|entry| entry.unwrap().file_name().to_str() == Some(&name))
    });
    let model = model.expect("a fixture with external data");
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.onnx");
    let report = fused(&model, &output);
    assert!(matches!(report.run, Some(Outcome::Agreed(_))));
    let (inputs, expected) = (data(&model, "input"), data(&model, "output"));
    let found = run(&output, folder.path(), &inputs).unwrap();
    assert!(largest_error(&expected, &found) < 1e-5);
    assert!(
        run(&output, Path::new("src"), &inputs).is_err(),
        "the weights come from the side file"
    );
}

/// Returns what `about.txt` beside an exporter's files says under `key`.
fn about(model: &Path, key: &str) -> String {
    let text = fs::read_to_string(model.with_file_name("about.txt")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
    line.unwrap_or_else(|| panic!("{model:?} has no {key}")).to_owned()
}

/// Returns how many sums of three or more convolutions became one, and how many convolutions
/// and Transposes are left.
fn blocks_fused(model: &Path, output: &Path, options: &Options) -> (usize, usize, usize) {
    let report = converted(model, output, options);
    let branches = |text: &str| text.split(" + ").filter(|branch| branch.contains('×')).count();
    // Not counted: where no single kernel is right, the branches' Transposes alone become one.
    let is_whole = |block: &&BlockReport| block.geometry.len() == 1;
    let blocks = report.blocks.iter().filter(is_whole);
    let blocks = blocks.filter(|block| branches(&block.branches) >= 3).count();
    let left = operators(output);
    let count = |operator: &str| left.get(operator).copied().unwrap_or(0);
    (blocks, count("Conv"), count("Transpose"))
}

/// The same network is fused to the same structure, whichever exporter wrote it.
#[test]
fn every_exporters_blocks_are_fused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.onnx");
    let mut rows: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for model in models("exporters") {
        let number = |key| about(&model, key).parse::<usize>().unwrap();
        let (blocks, convs) = (number("blocks"), number("convs"));
        let (fused, left, mut transposes) = blocks_fused(&model, &output, &Options::default());
        assert_eq!(left, convs + 2 * (blocks - fused), "{model:?}");
        let mut cell = format!("{fused}/{blocks}");
        if fused < blocks {
            // With a stride, what SAME means depends on the input size.
            let mut options = Options::default();
            let input = counts::decoded(&model).graph.unwrap().input.remove(0);
            let shape = data(&model, "input").remove(0).shape().to_vec();
            options.run.shapes.insert(input.name().to_owned(), shape);
            let (fused, left, then) = blocks_fused(&model, &output, &options);
            assert_eq!((fused, left), (blocks, convs), "{model:?}");
            cell = format!("{cell}, {fused}/{blocks} with `--input-shape`");
            transposes = then;
        }
        // At most one Transpose before and one behind each convolution, and none if there was none.
        let limit = if counts::mentions(&model, "Transpose") { 2 * convs } else { 0 };
        assert!(transposes <= limit, "{model:?}: {transposes} Transposes are left");
        let case = model.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let row = format!(
            "| {} | {} | {} | {case}",
            about(&model, "exporter"),
            about(&model, "framework"),
            about(&model, "layout")
        );
        let mode = model.file_stem().unwrap().to_str().unwrap().to_owned();
        rows.entry(row).or_default().entry(cell).or_default().push(mode);
    }
    let mut table = String::from(
        "| exporter | framework | layout | case | files | blocks fused / there |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for (row, cells) in rows {
        for (cell, modes) in cells {
            writeln!(table, "{row} | {} | {cell} |", modes.join(", ")).unwrap();
        }
    }
    results::hold("exporters", &table);
}

/// Networks with trained weights, exported with folded norms and with norms kept: every block
/// is proved, the run agrees, and verification leaves no block alone.
#[test]
fn trained_networks_are_proved() {
    for model in models("trained") {
        let look = looked(&model, &Options::default());
        let folder = tempfile::tempdir().unwrap();
        let report = fused(&model, &folder.path().join("out.onnx"));
        assert!(!look.blocks.is_empty(), "{model:?}");
        assert_eq!(report.blocks.len(), look.blocks.len(), "{model:?}: {report}");
        assert!(report.blocks.iter().all(|block| block.proof.is_some()), "{model:?}: {report}");
        assert!(matches!(report.run, Some(Outcome::Agreed(_))), "{model:?}: {report}");
    }
}

/// A shape given by the user is neither printed nor written if no block depends on it.
#[test]
fn a_general_file_is_general_whatever_shape_is_given() {
    let model = Path::new("fixtures/networks/resnet18/torchscript_kept_dynamic.onnx");
    let folder = tempfile::tempdir().unwrap();
    let given = |shapes: &[usize]| {
        let mut options = Options::default();
        if !shapes.is_empty() {
            let input = counts::decoded(model).graph.unwrap().input[0].name().to_owned();
            options.run.shapes.insert(input, shapes.to_vec());
        }
        let output = folder.path().join("out.onnx");
        (converted(model, &output, &options), fs::read(output).unwrap())
    };
    let shape = data(model, "input")[0].shape().to_vec();
    let ((general, without), (given, with)) = (given(&[]), given(&shape));
    assert_eq!(without, with);
    let conditions = |report: &acb_fuse::report::Report| {
        report.blocks.iter().flat_map(|block| block.conditions.clone()).collect::<Vec<_>>()
    };
    assert_eq!(conditions(&given), conditions(&general));
    assert!(conditions(&given).is_empty(), "{given}");
}
