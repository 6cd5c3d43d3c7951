//! Verification fails when it must, and only then.
//!
//! A fuser is broken in every way that comes to mind, on blocks of many geometries.
//! Whether a mutant computes anything else is decided by a convolution written down
//! here, without an engine; verification must catch all mutants that do.

mod beliefs;
mod byproduct;
mod files;
mod kept;
mod mistakes;
mod placed;
mod scene;
mod turned_root;

pub use scene::with_model;

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use acb_fuse::onnx::proto::ModelProto;
use acb_fuse::onnx::storage::{Links, Storage};

use crate::support::geometries::{Geometry, exported, generated, networks};
use crate::support::tool::fused;
use crate::support::{naive, parallel, results};
use beliefs::{BELIEFS, Belief, Caught};
use files::{Files, MISWRITTEN};
use mistakes::{MISTAKES, Make};
use scene::{Fate, NOTHING, Scene, difference};

/// The number of generated blocks; `MUTANTS_GEOMETRIES` may ask for more.
const GENERATED: usize = 24;

/// Blocks as exporters write them: layouts, borders, crops, sequences, means, products.
const EXPORTED: [&str; 28] = [
    "cases/chwn/",
    "cases/behind_a_tiny_scale/",
    "blocks/circular_k3/",
    "blocks/cropped_output/",
    "blocks/depthwise/torchscript_kept",
    "blocks/difference/",
    "cases/dilated_beside_large/",
    "blocks/dilation2/torchscript_kept",
    "blocks/groups2/torchscript_kept",
    "blocks/k11_stride4_small_arms/",
    "blocks/k3/torchscript_kept",
    "blocks/k5_p2/torchscript_kept",
    "cases/mean_beside_square/",
    "cases/nhwc_sandwich/",
    "cases/norms_around_gemm/",
    "cases/product_in_nhwc/",
    "blocks/reflect_k3/",
    "blocks/replicate_k5/",
    "cases/repvgg_grouped/",
    "cases/same_upper/",
    "blocks/shifted_k5_stride2/",
    "blocks/stride2_odd/torchscript_kept",
    "blocks/transposed_stride2_output_padding/",
    "cases/two_roots/",
    "exporters/keras_block_jax/",
    "exporters/mxnet_block_bias/",
    "exporters/tensorflow_block_valid/",
    "relatives/span/torchscript_folded",
];

/// Whole networks whose filled borders are tried whenever they are read, which takes long: mutants
/// that misread the model are left out.
const SLOW: [&str; 3] = [
    "relatives/dbb/dynamo_kept",
    "relatives/ecbsr/torchscript_folded",
    "relatives/unireplknet/dynamo_folded",
];

/// Models whose wires, bodies, inputs or modes matter.
const FILES: [&str; 9] = [
    "cases/if_branches/",
    "cases/ir3_if/",
    "cases/loop_body/",
    "blocks/shared_weights/",
    "cases/training_mode_lone_norm/",
    "cases/two_heads/",
    "cases/weights_as_inputs/",
    "exporters/torch_net/",
    "networks/cifar_quick/",
];

fn generated_count() -> usize {
    env::var("MUTANTS_GEOMETRIES").map_or(GENERATED, |count| count.parse().expect("a number"))
}

fn geometries() -> Vec<Geometry> {
    let files = exported(&EXPORTED).into_iter().chain(exported(&SLOW));
    generated(generated_count()).into_iter().chain(files).collect()
}

/// The right rewrites are proved, and the judge sees no difference either: it runs the nodes that
/// were read where it knows their operators.
#[test]
fn right_rewrites_are_proved_and_judged_right() {
    parallel::each(&geometries(), |geometry| {
        Scene::of(&geometry.bytes, |scene| {
            let name = &geometry.name;
            let proof = scene.proof(&scene.right);
            assert!(proof.as_ref().is_ok_and(|&error| error < 1e-14), "{name}: {proof:?}");
            assert_eq!(scene.fate(&scene.right), Fate::Same, "{name}");
            if geometry.is_file {
                return;
            }
            let [old, new] = scene.sides().map(|side| naive::run(&side, scene.probe()).unwrap());
            assert!(difference(&old, &new) < NOTHING, "{name}");
            // To infer sizes would load the whole model; nothing in these blocks depends on a size.
            assert!(!scene.asked_for_sizes(), "{name}");
        });
    });
}

/// The number of mutants of one kind, by their fate.
#[derive(Debug, Clone, Copy, Default)]
struct MutantCounts {
    /// Geometries, or files, that have such mutants.
    geometries: usize,
    mutants: usize,
    different: usize,
    rounding: usize,
    proof: usize,
    left_alone: usize,
    reading: usize,
    /// Mutants that the run alone would see, whatever reading back says.
    run: usize,
    missed: usize,
}

impl MutantCounts {
    fn plus(self, other: &MutantCounts) -> MutantCounts {
        MutantCounts {
            geometries: self.geometries + other.geometries,
            mutants: self.mutants + other.mutants,
            different: self.different + other.different,
            rounding: self.rounding + other.rounding,
            proof: self.proof + other.proof,
            left_alone: self.left_alone + other.left_alone,
            reading: self.reading + other.reading,
            run: self.run + other.run,
            missed: self.missed + other.missed,
        }
    }

    fn of_fates(fates: &[Fate]) -> MutantCounts {
        let count = |fate: Fate| fates.iter().filter(|found| **found == fate).count();
        MutantCounts {
            geometries: usize::from(!fates.is_empty()),
            mutants: fates.len(),
            different: fates.len() - count(Fate::Same),
            rounding: count(Fate::CaughtByRounding),
            proof: count(Fate::CaughtByProof),
            left_alone: count(Fate::LeftAlone),
            missed: count(Fate::Missed),
            ..MutantCounts::default()
        }
    }
}

/// Returns what became of a geometry's mutants, per row of [`MISTAKES`].
fn fates_of_mistakes(geometry: &Geometry) -> Vec<MutantCounts> {
    let slow = SLOW.iter().any(|path| geometry.name.contains(path));
    Scene::of(&geometry.bytes, |scene| {
        let counts = |(mistake, make): &(&str, Make)| {
            let mutants = match make {
                Make::Misread(_) if slow => vec![],
                Make::Misread(models) => {
                    models(scene).iter().filter_map(|model| scene.rewritten(model)).collect()
                }
                Make::Miscompute(mutants) => mutants(scene),
            };
            let fates: Vec<Fate> = mutants.iter().map(|mutant| scene.fate(mutant)).collect();
            if fates.contains(&Fate::Missed) {
                println!("missed: {mistake}: {}", geometry.name);
            }
            MutantCounts::of_fates(&fates)
        };
        MISTAKES.iter().map(counts).collect()
    })
}

/// Returns what became of a file's mutants, per row of [`MISWRITTEN`].
fn fates_of_files(file: &Geometry) -> Vec<MutantCounts> {
    Files::of(&file.bytes, Storage::default(), |files| {
        let right = files.read_back(&files.new);
        assert!(right.is_ok() && !files.run_refuses(&files.new), "{}: {right:?}", file.name);
        let counts = |(mistake, make): &(&str, fn(&Files) -> Vec<ModelProto>)| {
            let mutants = make(files);
            let mut counts = MutantCounts {
                geometries: usize::from(!mutants.is_empty()),
                mutants: mutants.len(),
                ..MutantCounts::default()
            };
            for mutant in mutants.iter().filter(|mutant| **mutant != files.new) {
                let (read, ran) = (files.read_back(mutant).is_err(), files.run_refuses(mutant));
                if !read {
                    println!("missed: {mistake}: {}", file.name);
                }
                counts.different += 1;
                counts.reading += usize::from(read);
                counts.run += usize::from(ran);
                counts.missed += usize::from(!read && !ran);
            }
            counts
        };
        MISWRITTEN.iter().map(counts).collect()
    })
}

/// Returns the sum of one row over all geometries or files.
fn summed(all: &[Vec<MutantCounts>], row: usize) -> MutantCounts {
    all.iter().fold(MutantCounts::default(), |sum, tallies| sum.plus(&tallies[row]))
}

/// No mutant that computes or stores anything else gets through, and every row of the
/// table has such mutants.
#[test]
fn every_mutant_is_caught() {
    let geometries = geometries();
    let files: Vec<Geometry> = networks().into_iter().chain(exported(&FILES)).collect();
    let mistakes: Vec<_> = parallel::each(&geometries, fates_of_mistakes);
    let miswritten: Vec<_> = parallel::each(&files, fates_of_files);
    let mut table = String::from(
        "| mistake in a block | geometries | mutants | really different | caught by rounding | caught by proof | not run, so left alone | missed |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut all = MutantCounts::default();
    for (row, (name, _)) in MISTAKES.iter().enumerate() {
        let counts = summed(&mistakes, row);
        let MutantCounts {
            geometries,
            mutants,
            different,
            rounding,
            proof,
            left_alone,
            missed,
            ..
        } = counts;
        writeln!(
            table,
            "| {name} | {geometries} | {mutants} | {different} | {rounding} | {proof} | {left_alone} | {missed} |"
        )
        .unwrap();
        assert!(different > 0, "{name} is never a mistake");
        all = all.plus(&counts);
    }
    table.push_str(
        "\n| mistake in the file | files | mutants | really different | caught by reading | seen by the run alone | missed |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (row, (name, _)) in MISWRITTEN.iter().enumerate() {
        let counts = summed(&miswritten, row);
        let MutantCounts { geometries, mutants, different, reading, run, missed, .. } = counts;
        writeln!(
            table,
            "| {name} | {geometries} | {mutants} | {different} | {reading} | {run} | {missed} |"
        )
        .unwrap();
        assert!(different > 0, "{name} is never a mistake");
        all = all.plus(&counts);
    }
    println!(
        "{} mistakes, {} geometries, {} files: {} mutants, {} really different, {} missed",
        MISTAKES.len() + MISWRITTEN.len(),
        geometries.len(),
        files.len(),
        all.mutants,
        all.different,
        all.missed
    );
    println!("{table}");
    assert_eq!(all.missed, 0, "mutants that were missed are named above");
    if generated_count() == GENERATED {
        results::hold("mistakes", &table);
    }
}

/// Verification does not share what the fuser wrongly believes of the file: every wrong belief
/// really makes something else, and is caught without a run.
#[test]
fn every_wrong_belief_is_caught() {
    let mut table = String::from(
        "| wrong belief | mutants | caught by the claim | caught by proof | not provable, so left alone | missed |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    let rows: Vec<(&str, Vec<Caught>)> = parallel::each(&BELIEFS, |&(name, make)| {
        let fate = |belief: Belief| {
            let is_narrow = belief.differs_at.is_empty();
            assert!(is_narrow || belief.is_wrong(), "{name} is no mistake");
            let fate = belief.fate();
            if fate == Caught::Missed {
                println!("missed: {name}: {:?}", belief.differs_at);
            }
            fate
        };
        (name, make().into_iter().map(fate).collect())
    });
    let mut missed = 0;
    for (name, fates) in &rows {
        let count = |fate: Caught| fates.iter().filter(|found| **found == fate).count();
        let [claim, proof, alone, none] =
            [Caught::ByClaim, Caught::ByProof, Caught::LeftAlone, Caught::Missed].map(count);
        let all = fates.len();
        writeln!(table, "| {name} | {all} | {claim} | {proof} | {alone} | {none} |").unwrap();
        missed += none;
    }
    println!("{table}");
    assert_eq!(missed, 0, "see the table");
    results::hold("mistakes", &table);
}

/// Weights in a side file are read back too, those that were only moved there included: a change
/// of any byte that a tensor holds is caught, and so is a missing end.
#[test]
fn a_wrong_side_file_is_caught() {
    let original = Path::new("fixtures/networks/resnet18/dynamo_kept_static.onnx");
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new.onnx");
    let report = fused(original, &new);
    let side_file = folder.path().join(report.output.unwrap().side_files[0].location.clone());
    let (bytes, right) = (fs::read(&new).unwrap(), fs::read(&side_file).unwrap());
    let beside = Storage::in_folder(original.parent().unwrap(), Links::Confined);
    let changed = |at: usize| {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        wrong
    };
    Files::of(&fs::read(original).unwrap(), beside, |files| {
        let read_back = |content: &[u8]| {
            // Each content is written to a folder of its own: a mapped side file is not written to.
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(side_file.file_name().unwrap()), content).unwrap();
            files.read_back_from(&bytes, Storage::in_folder(folder.path(), Links::Confined))
        };
        read_back(&right).unwrap();
        let last = right.len() - 1;
        for wrong in [changed(0), changed(last), right[..last].to_vec()] {
            assert!(read_back(&wrong).is_err());
        }
        let caught = |at: &usize| read_back(&changed(*at)).is_err();
        let count = (0..right.len()).step_by(right.len() / 50).filter(caught).count();
        assert_eq!(count, 51, "every byte that is tried is a tensor's");
    });
}
