//! Identities that are kept apart from kernels: which ones are, that the new file agrees with
//! the old one, and that a second conversion leaves it alone.

use std::fs;
use std::path::{Path, PathBuf};

use acb_fuse::report::{KeptApart, Report};
use acb_fuse::verify::outcome::Outcome;
use acb_fuse::{KeepIdentity, Options, fuse_file, inspect_file};

use crate::support::cases;
use crate::support::fixtures::models;
use crate::support::parallel;

fn asking(keep_identity: KeepIdentity) -> Options {
    let mut options = Options::default();
    options.keep_identity = keep_identity;
    options
}

/// Returns the report of a conversion, and checks that a second one with the same options
/// finds nothing.
fn converted_twice(model: &Path, options: &Options) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let [once, twice] = ["once.onnx", "twice.onnx"].map(|name| folder.path().join(name));
    let report = fuse_file(model, &once, options).unwrap_or_else(|why| panic!("{model:?}: {why}"));
    let second = fuse_file(&once, &twice, options).unwrap_or_else(|why| panic!("{model:?}: {why}"));
    assert!(second.blocks.is_empty(), "{model:?} {options:?}: {report}\n{second}");
    assert_eq!(fs::read(&once).unwrap(), fs::read(&twice).unwrap(), "{model:?}");
    report
}

/// Each row: the network, the blocks whose identity stays apart by `Auto`, and how many do by
/// `Always`.
#[test]
fn trained_identities_that_dominate_stay_apart() {
    for (network, kept, always) in [
        ("repvgg", &["f.2", "f.4", "f.5", "f.6"][..], 4),
        ("mobileone", &["f.10.br"], 5),
        ("acnet_quick", &[], 0),
        ("acnet_resnet", &[], 0),
    ] {
        for form in ["folded", "kept"] {
            let model = PathBuf::from(format!("fixtures/trained/{network}/{form}.onnx"));
            let never = inspect_file(&model, &asking(KeepIdentity::Never)).unwrap();
            for (keep, expected) in
                [(KeepIdentity::Auto, kept.len()), (KeepIdentity::Always, always)]
            {
                let report = converted_twice(&model, &asking(keep));
                assert!(matches!(report.run, Some(Outcome::Agreed(_))), "{model:?}: {report}");
                assert!(report.blocks.iter().all(|block| block.proof.is_some()), "{report}");
                assert_eq!(report.blocks.len(), never.blocks.len(), "{report}");
                let apart = report.blocks.iter().filter(|block| !block.kept_apart.is_empty());
                let apart =
                    apart.map(|block| block.name.trim_start_matches("f/").replace('/', "."));
                let apart: Vec<String> = apart.collect();
                assert_eq!(apart.len(), expected, "{model:?} {keep:?}: {apart:?}");
                if keep == KeepIdentity::Auto {
                    assert_eq!(apart, kept, "{model:?}");
                }
                let told = report.blocks.iter().flat_map(|block| &block.kept_apart);
                let is_worth_it = |apart: &KeptApart| {
                    apart.sqnr_merged.unwrap() < 30.0
                        && apart.sqnr_apart.unwrap() - apart.sqnr_merged.unwrap() > 6.0
                };
                let mut worth_it = told.map(is_worth_it);
                assert!(keep == KeepIdentity::Always || worth_it.all(|is| is), "{report:#}");
            }
        }
    }
}

/// Whichever identities stay apart: a file that was converted is left as it is.
#[test]
fn what_stays_apart_is_left_alone_the_second_time() {
    let cases = cases::all().iter().map(|case| case.model.clone());
    let all: Vec<PathBuf> = cases.chain(models("relatives")).collect();
    parallel::each(&all, |model| {
        for keep in [KeepIdentity::Auto, KeepIdentity::Always] {
            let mut options = asking(keep);
            options.verify = false;
            converted_twice(model, &options);
        }
    });
}
