//! Runs of whole models that are hard to compare: steps, cancellation, values that do not vary,
//! sizes that nobody declares, nodes that the engine does not run. Mistakes must be seen, too.
//!
//! `fixtures/runs/<name>.onnxtxt` (or `.onnx`) is a model, and `<name>.txt` beside it is what the
//! run says, each measured number as `#`. `UPDATE_EXPECT=1 cargo test --test it runs` writes these
//! texts anew.
//!
//! ```text
//! # mutant: 1        by how much of their largest value the weights are changed (by default, ten
//! #                  tolerances of their type); `none` if nothing can be seen
//! # not run           the run does not reach every block that changed, or says nothing of it
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use acb_fuse::RunOptions;
use acb_fuse::engine::Limits;
use acb_fuse::onnx::float::Float;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::proto::{ModelProto, TensorProto};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use acb_fuse::report::Report;
use acb_fuse::verify::compare::Tolerances;
use acb_fuse::verify::outcome::Outcome;
use acb_fuse::verify::run::run;
use expect_test::expect_file;
use prost::Message;

use crate::support::fixtures::{has_extension, sorted};
use crate::support::parallel;
use crate::support::text;
use crate::support::tool::{converted, converts, options};

/// A case: its path, its model, its mutant, and whether the run reaches all blocks that changed.
struct RunCase {
    path: PathBuf,
    model: Vec<u8>,
    mutant: Mutant,
    runs_all: bool,
}

/// By how much of their largest value the weights of a mutant are off.
#[derive(Debug, Clone, Copy)]
enum Mutant {
    /// By ten tolerances of their type.
    TenTolerances,
    By(f64),
    /// No mutant is tried, as nothing can be seen.
    Unseen,
}

fn cases() -> Vec<RunCase> {
    let paths = sorted(Path::new("fixtures/runs")).into_iter();
    let paths = paths.filter(|path| !has_extension(path, "txt"));
    let case = |path: PathBuf| {
        if has_extension(&path, "onnx") {
            let (model, mutant) = (fs::read(&path).unwrap(), Mutant::TenTolerances);
            return RunCase { model, path, mutant, runs_all: true };
        }
        let said = fs::read_to_string(&path).unwrap();
        let model = text::model(&said).unwrap_or_else(|what| panic!("{}, {what}", path.display()));
        let mutant = said.lines().find_map(|line| line.strip_prefix("# mutant: "));
        let amount = |said: &str| said.parse().map_or(Mutant::Unseen, Mutant::By);
        let mutant = mutant.map_or(Mutant::TenTolerances, amount);
        let runs_all = !said.lines().any(|line| line == "# not run");
        RunCase { path, model: model.encode_to_vec(), mutant, runs_all }
    };
    paths.map(case).collect()
}

#[test]
fn right_results_are_not_refused_and_mutants_are() {
    parallel::each(&cases(), |case| {
        let name = case.path.display();
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old.onnx"), folder.path().join("new.onnx"));
        fs::write(&old, &case.model).unwrap();
        let report = converted(&old, &new, &options(|_| ()));
        let fed = fed_elements(&report);
        let most = fed.first().map_or(0, |first| 2 * first);
        assert!(fed.iter().sum::<usize>() <= most, "{name}: {fed:?}");
        let is_run = !matches!(report.run, Some(Outcome::NotRun(_)));
        assert_eq!(is_run, case.runs_all, "{name}: {:?}", report.run);
        let required = options(|options| options.require_run = true);
        let verdict = converts(&old, &folder.path().join("required.onnx"), &required);
        assert_eq!(verdict.is_ok(), is_run, "{name}");
        let said = report.to_string();
        let said = said.lines().filter(|line| line.starts_with("run: ")).map(masked);
        let said: Vec<String> = said.collect();
        let beside = std::env::current_dir().unwrap().join(case.path.with_extension("txt"));
        expect_file![beside].assert_eq(&format!("{}\n", said.join("\n")));

        if let Mutant::Unseen = case.mutant {
            return;
        }
        let right = ModelProto::decode(fs::read(&new).unwrap().as_slice()).unwrap();
        let old = Model::index(case.model.clone().into(), Storage::default()).unwrap();
        let before = ModelProto::decode(case.model.as_slice()).unwrap();
        let mut mutants = 0;
        for float in [Float::F16, Float::Bf16, Float::F32, Float::F64] {
            let amount = match case.mutant {
                Mutant::By(amount) => amount,
                _ => 10.0 * Tolerances { given: None }.of(Some(float)),
            };
            let wrong = off_by(amount, float, &before, &right);
            if wrong == right {
                continue;
            }
            mutants += 1;
            let wrong = Model::index(wrong.encode_to_vec().into(), Storage::default()).unwrap();
            let outcome = run(&old, &wrong, &RunOptions::default(), Limits::of_reading()).unwrap();
            assert!(matches!(outcome, Outcome::Differs { .. }), "{name}, {float:?}: {outcome:?}");
        }
        assert!(mutants > 0, "{name}");
    });
}

/// Returns the number of elements that were fed in each run; runs in pieces are not among them.
fn fed_elements(report: &Report) -> Vec<usize> {
    let Some(Outcome::Agreed(agreement)) = &report.run else { return Vec::new() };
    let elements = |run: &Vec<(String, Vec<usize>)>| {
        run.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    };
    agreement.shapes.iter().map(elements).collect()
}

/// Names of the weights that are drawn anew for each model.
const DRAWN: &[&str] = &["square", "horizontal", "large", "a_gamma", "a_beta", "a_mean", "a_var"];

/// 40 models of each case with a step, a slope, a cancellation or flat values, which differ in
/// their weights: no right result is refused.
#[test]
fn no_right_result_is_refused_in_500_models() {
    let kinds = ["step_", "slope_", "saturated_", "dead_", "cancelling_"];
    let cases = sorted(Path::new("fixtures/runs")).into_iter().filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        has_extension(path, "onnxtxt") && kinds.iter().any(|kind| name.starts_with(kind))
    });
    let texts = cases.map(|path| fs::read_to_string(path).unwrap());
    let models: Vec<ModelProto> = texts
        .flat_map(|said| {
            (0..40).map(move |number| {
                // The values of weights follow from their names.
                let renamed = DRAWN.iter().fold(said.clone(), |said, name| {
                    let words = said.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_');
                    let renamed = words.map(|word| match word.strip_prefix(name) {
                        Some(rest)
                            if !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') =>
                        {
                            format!("v{number}_{word}")
                        }
                        _ => word.to_owned(),
                    });
                    renamed.collect()
                });
                text::model(&renamed).unwrap()
            })
        })
        .collect();
    assert!(models.len() >= 500, "{}", models.len());
    let refused = parallel::each(&models, |model| {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old.onnx"), folder.path().join("new.onnx"));
        fs::write(&old, model.encode_to_vec()).unwrap();
        let report = converted(&old, &new, &options(|options| options.require_run = true));
        !matches!(report.run, Some(Outcome::Agreed(_)))
    });
    assert_eq!(refused.iter().filter(|refused| **refused).count(), 0);
}

/// Returns the new model with the numbers of new kernels of type `float` off by `amount` of the
/// largest weight of both models' kernels: in turn up, not at all, and down. In bodies, all
/// kernels of the type are off, and only up.
fn off_by(amount: f64, float: Float, old: &ModelProto, new: &ModelProto) -> ModelProto {
    let stored = |model: &ModelProto| model.graph.as_ref().unwrap().initializer.clone();
    let is_kernel =
        |tensor: &&TensorProto| tensor.dims.len() > 2 && tensor.data_type() == float.to_onnx();
    let numbers = |tensor: &TensorProto| {
        tensor::floats(tensor, &Storage::default()).unwrap().into_iter().collect::<Vec<f64>>()
    };
    let largest = |tensors: &[TensorProto]| {
        let numbers = tensors.iter().filter(is_kernel).flat_map(numbers);
        numbers.fold(0.0f64, |most, number| most.max(number.abs()))
    };
    let (before, mut wrong) = (stored(old), new.clone());
    let most = largest(&before).max(largest(&stored(new)));
    let shift = |tensor: &mut TensorProto, by: &[f64]| {
        let numbers = numbers(tensor).into_iter().zip(by.iter().cycle());
        let numbers: Vec<f64> = numbers.map(|(number, by)| number + by).collect();
        *tensor = TensorProto {
            raw_data: Some(float.encode(&numbers).into()),
            ..tensor::header(tensor.name(), &tensor.dims, tensor.data_type())
        };
    };
    let graph = wrong.graph.as_mut().unwrap();
    let fresh = graph.initializer.iter_mut().filter(|tensor| !before.contains(tensor));
    for tensor in fresh.filter(|tensor| is_kernel(&&**tensor)) {
        shift(tensor, &[amount * most, 0.0, -amount * most]);
    }
    for body in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        let stored = body.g.as_deref_mut().into_iter().flat_map(|body| &mut body.initializer);
        for tensor in stored.filter(|tensor| is_kernel(&&**tensor)) {
            let most = if most > 0.0 { most } else { 1.0 };
            shift(tensor, &[amount * most]);
        }
    }
    wrong
}

/// Returns a line with `#` for each measured number.
fn masked(line: &str) -> String {
    let is_measured = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && (word.contains("e-") || word.contains('.'))
    };
    let words = line.split(' ').map(|word| {
        let bare = word.trim_end_matches([',', ';']);
        if is_measured(bare) { word.replace(bare, "#") } else { word.to_owned() }
    });
    // On another processor, it may be by little.
    words.collect::<Vec<String>>().join(" ").replace(" exactly", " within #")
}
