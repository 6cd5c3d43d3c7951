//! Verification fails when it must, and only then.
//!
//! A fuser is broken in every way that comes to mind, on blocks of many geometries.
//! Whether a mutant computes anything else is decided by a convolution written down
//! here, without an engine; verification must catch all that do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::type_complexity
)]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod geometries;
mod mistakes;
mod naive;
mod scene;

use std::env;

use files::{Files, MISWRITTEN};
use geometries::{Geometry, exported, generated, networks};
use mistakes::{MISTAKES, Make};
use rayon::prelude::*;
use scene::{Fate, NOTHING, Scene, difference};

/// More of them, if the environment says so.
fn geometry_count() -> usize {
    env::var("MUTANTS_GEOMETRIES").map_or(24, |count| count.parse().expect("a number"))
}

/// Blocks as exporters write them: layouts, borders, crops, sequences, means, functions.
const EXPORTED: [&str; 22] = [
    "blocks/chwn/",
    "blocks/circular_k3/",
    "blocks/cropped_output/",
    "blocks/difference/",
    "blocks/dilated_beside_large/",
    "blocks/k11_stride4_small_arms/",
    "blocks/mean_beside_square/",
    "blocks/nhwc_sandwich/",
    "blocks/norms_around_gemm/",
    "blocks/product_in_nhwc/",
    "blocks/reflect_k3/",
    "blocks/replicate_k5/",
    "blocks/repvgg_grouped/",
    "blocks/same_upper/",
    "blocks/shifted_k5_stride2/",
    "blocks/transposed_stride2_output_padding/",
    "blocks/two_roots/",
    "exporters/keras_block_jax/",
    "exporters/mxnet_block_bias/",
    "exporters/tensorflow_block_valid/",
    "relatives/dbb/",
    "relatives/ecbsr/",
];

fn geometries() -> Vec<Geometry> {
    generated(geometry_count()).into_iter().chain(exported(&EXPORTED)).collect()
}

/// The rewrites themselves are proved, and the judge sees no difference either: it runs
/// the nodes that were read where it knows their operators.
#[test]
fn right_rewrites_are_proved_and_judged_right() {
    geometries().par_iter().for_each(|geometry| {
        Scene::of(&geometry.bytes, |scene| {
            let proof = scene.proof(&scene.right);
            assert!(proof.as_ref().is_ok_and(|&error| error < 1e-13), "{}: {proof:?}", geometry.name);
            assert_eq!(scene.fate(&scene.right), Fate::Same);
            if !geometry.name.contains(".onnx") {
                let claim = scene.claim();
                let (old, new) =
                    (naive::run(&claim.old, scene.probe()), naive::run(&claim.new, scene.probe()));
                let error = difference(&old.unwrap(), &new.unwrap());
                assert!(error < NOTHING, "{}: {error:e}", geometry.name);
            }
        });
    });
}

/// How many mutants of one kind met which fate.
#[derive(Debug, Clone, Default)]
struct Tally {
    geometries: usize,
    mutants: usize,
    different: usize,
    rounding: usize,
    proof: usize,
    missed: usize,
}

#[test]
fn mistakes_of_the_fuser_are_caught() {
    let geometries = geometries();
    let fates: Vec<Vec<Vec<Fate>>> = geometries
        .par_iter()
        .map(|geometry| {
            Scene::of(&geometry.bytes, |scene| {
                let fates = |(name, make): &(&str, Make)| {
                    let mutants = match make {
                        Make::Misread(models) => {
                            models(scene).iter().filter_map(|m| scene.rewritten(m)).collect()
                        }
                        Make::Miscompute(mutants) => mutants(scene),
                    };
                    let fates: Vec<Fate> = mutants.iter().map(|mutant| scene.fate(mutant)).collect();
                    if fates.contains(&Fate::Missed) {
                        for mutant in mutants.iter().filter(|m| scene.fate(m) == Fate::Missed) {
                            println!("missed: {name}: {} {:?}", geometry.name, scene.proof(mutant));
                        }
                    }
                    fates
                };
                MISTAKES.iter().map(fates).collect()
            })
        })
        .collect();
    for (row, (name, _)) in MISTAKES.iter().enumerate() {
        let mut tally = Tally::default();
        for fates in &fates {
            let of = |fate: Fate| fates[row].iter().filter(|found| **found == fate).count();
            tally.geometries += usize::from(!fates[row].is_empty());
            tally.mutants += fates[row].len();
            tally.different += fates[row].len() - of(Fate::Same);
            tally.rounding += of(Fate::CaughtByRounding);
            tally.proof += of(Fate::CaughtByProof);
            tally.missed += of(Fate::Missed);
        }
        println!("{name}: {tally:?}");
    }
}

/// Networks and files whose bodies, inputs or modes matter.
const FILES: [&str; 9] = [
    "blocks/if_branches/",
    "blocks/ir3_if/",
    "blocks/loop_body/",
    "blocks/opset9_training_outputs/",
    "blocks/shared_weights/",
    "blocks/two_heads/",
    "blocks/weights_as_inputs/",
    "exporters/torch_net/",
    "networks/cifar_quick/",
];

#[test]
fn mistakes_in_writing_are_caught() {
    let files: Vec<Geometry> = networks().into_iter().chain(exported(&FILES)).collect();
    let fates: Vec<Vec<Vec<(bool, bool, bool)>>> = files
        .par_iter()
        .map(|file| {
            Files::of(&file.bytes, |files| {
                let right = files.read_back(&files.new);
                assert!(right.is_ok() && !files.run_refuses(&files.new), "{}: {right:?}", file.name);
                let fates = |(name, make): &(&str, fn(&Files) -> Vec<_>)| {
                    make(files).iter().map(|mutant| {
                        let same = *mutant == files.new;
                        let (read, run) = (files.read_back(mutant).is_err(), files.run_refuses(mutant));
                        if !same && !read { println!("missed: {name}: {}", file.name); }
                        (same, read, run)
                    }).collect()
                };
                MISWRITTEN.iter().map(fates).collect()
            })
        })
        .collect();
    for (row, (name, _)) in MISWRITTEN.iter().enumerate() {
        let all: Vec<_> = fates.iter().map(|f| &f[row]).collect();
        let count = |what: fn(&(bool, bool, bool)) -> bool| all.iter().flat_map(|f| f.iter()).filter(|f| what(f)).count();
        println!("{name}: files {} mutants {} different {} read {} run {} missed {}", all.iter().filter(|f| !f.is_empty()).count(), count(|_| true), count(|f| !f.0), count(|f| !f.0 && f.1), count(|f| f.2), count(|f| !f.0 && !f.1));
    }
}
