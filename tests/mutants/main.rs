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
mod geometries;
mod mistakes;
mod naive;
mod scene;

use std::env;

use geometries::{Geometry, exported, generated};
use mistakes::{MISTAKES, Make};
use rayon::prelude::*;
use scene::{Fate, NOTHING, Scene, difference};

/// More of them, if the environment says so.
fn geometry_count() -> usize {
    env::var("MUTANTS_GEOMETRIES").map_or(24, |count| count.parse().expect("a number"))
}

/// Blocks as exporters write them: layouts, borders, crops, sequences, means, functions.
const EXPORTED: [&str; 4] = [
    "blocks/k3/",
    "blocks/nhwc_sandwich/",
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
                        println!("missed: {name}: {}", geometry.name);
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
