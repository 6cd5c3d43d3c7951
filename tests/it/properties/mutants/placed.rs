//! Numbers of new tensors at a wrong place: rows of kernels that were stacked, groups, and shifts
//! that stand in front of a kernel.

use std::fs;
use std::time::Duration;

use acb_fuse::engine::Limits;
use acb_fuse::pipeline::claim::claims;
use acb_fuse::pipeline::fuse;
use acb_fuse::plan::{BlockNames, Wanted, plan};
use acb_fuse::verify::proof::prove;
use ndarray::{ArrayD, Axis, Slice, concatenate};

use super::scene::{Made, original, with_model};
use crate::support::cases;

/// Cases, and the end of the names of their new tensors that are made wrongly.
const CASES: [(&str, &str); 7] = [
    ("kernels_side_by_side", ".weight"),
    ("kernels_side_by_side", ".bias"),
    ("kernels_side_by_side_channels_last", ".weight"),
    ("groups_by_hand", ".weight"),
    ("groups_by_hand_channels_last", ".weight"),
    ("shift_in_front_of_a_border", ".shift"),
    ("scale_behind_an_activation", ".shift"),
];

type Mistake = (&'static str, fn(&ArrayD<f64>) -> ArrayD<f64>);

const MISTAKES: [Mistake; 5] = [
    ("the first row is the last", |values| {
        let first = values.slice_axis(Axis(0), Slice::from(..1));
        let others = values.slice_axis(Axis(0), Slice::from(1..));
        concatenate(Axis(0), &[others, first]).unwrap()
    }),
    ("both halves are exchanged", |values| {
        let half = values.len_of(Axis(0)) / 2;
        let one = values.slice_axis(Axis(0), Slice::from(..half));
        let other = values.slice_axis(Axis(0), Slice::from(half..));
        concatenate(Axis(0), &[other, one]).unwrap()
    }),
    ("the last row is lost", |values| {
        let mut lost = values.clone();
        lost.index_axis_mut(Axis(0), values.len_of(Axis(0)) - 1).fill(0.0);
        lost
    }),
    ("it is multiplied by a half", |values| values * 0.5),
    ("its sign is another one", |values| -values),
];

#[test]
fn numbers_at_another_place_are_caught() {
    for (case, ending) in CASES {
        let mut caught = 0;
        with_model(fs::read(cases::model(case)).unwrap(), |reader, meanings| {
            let mut names = BlockNames::of(reader.graph);
            let plan = plan(reader, meanings, &mut names, Wanted::default());
            for block in &plan.blocks {
                let terms = fuse::terms(reader, meanings, &plan, block).unwrap();
                let right = Made::of(&fuse::fused(reader, block, &terms).unwrap());
                let tensors: Vec<_> = block.tensors_made().collect();
                let limits = Limits::new(Duration::from_secs(60), 1 << 30);
                let proved = |made: &Made| {
                    let claims = claims(reader, meanings, (block, &tensors), &made.side());
                    prove(&original(reader), &claims[0], limits)
                };
                assert!(proved(&right).is_ok(), "{case} {}", block.name);
                for (place, (name, values)) in right.exact.iter().enumerate() {
                    for (what, mistake) in MISTAKES {
                        let wrong_values = mistake(values);
                        if !name.ends_with(ending) || wrong_values == *values {
                            continue;
                        }
                        let mut wrong = right.clone();
                        wrong.exact[place].1 = wrong_values;
                        let found = proved(&wrong);
                        let is_caught = found.as_ref().is_err_and(|why| why.is_wrong());
                        assert!(is_caught, "{case} {name}, {what}: {found:?}");
                        caught += 1;
                    }
                }
            }
        });
        assert!(caught > 0, "{case} has no {ending}");
    }
}
