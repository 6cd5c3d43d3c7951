//! Branches that stay apart from a kernel, written wrongly.

use std::fs;
use std::time::Duration;

use acb_fuse::KeepIdentity;
use acb_fuse::engine::Limits;
use acb_fuse::pipeline::claim::claims;
use acb_fuse::pipeline::fuse;
use acb_fuse::plan::{BlockNames, Wanted, plan};
use acb_fuse::verify::proof::prove;
use ndarray::{ArrayD, Axis};

use super::scene::{Made, original, with_model};

/// A mistake in what is written beside a kernel.
type Mistake = (&'static str, fn(&mut Made));

const MISTAKES: [Mistake; 8] = [
    ("the scale is forgotten", |made| scale(made).fill(1.0)),
    ("the scale is inverted", |made| scale(made).mapv_inplace(|scale| 1.0 / scale)),
    ("the scale is negated", |made| scale(made).mapv_inplace(|scale| -scale)),
    ("the channels are turned round", |made| scale(made).invert_axis(Axis(0))),
    ("one channel is a millionth off", |made| {
        let first = scale(made).first_mut().unwrap();
        *first *= 1.0 + 1e-6;
    }),
    ("it is taken away", |made| made.nodes.last_mut().unwrap().op_type = Some("Sub".into())),
    ("it is left out", |made| {
        let last = made.nodes.last_mut().unwrap();
        last.input[1] = last.input[0].clone();
    }),
    ("its shift is forgotten", |made| {
        let mut numbers = made.exact.iter_mut();
        numbers.find(|(name, _)| name.ends_with(".bias")).unwrap().1.fill(0.0);
    }),
];

/// Returns the scale of the branch that is written beside the kernel.
fn scale(made: &mut Made) -> &mut ArrayD<f64> {
    let mut numbers = made.exact.iter_mut();
    &mut numbers.find(|(name, _)| name.ends_with(".scale")).unwrap().1
}

#[test]
fn wrong_scales_of_branches_that_stay_apart_are_caught() {
    let bytes = fs::read("fixtures/trained/repvgg/kept.onnx").unwrap();
    with_model(bytes, |reader, meanings| {
        let wanted = Wanted { keep_identity: KeepIdentity::Auto, ..Wanted::default() };
        let plan = plan(reader, meanings, &mut BlockNames::of(reader.graph), wanted);
        let block = plan.blocks.iter().find(|block| !block.kept.is_empty()).unwrap();
        let terms = fuse::terms(reader, meanings, &plan, block).unwrap();
        let right = Made::of(&fuse::fused(reader, block, &terms).unwrap());
        let ops: Vec<&str> = right.nodes.iter().map(|node| node.op_type()).collect();
        assert_eq!(ops, ["Conv", "Mul", "Add"]);
        let limits = Limits::new(Duration::from_secs(60), 1 << 30);
        let proved = |made: &Made| {
            let claim = claims(reader, meanings, (block, &[block.region.output]), &made.side())
                .swap_remove(0);
            prove(&original(reader), &claim, limits)
        };
        proved(&right).unwrap();
        for (name, mistake) in MISTAKES {
            let mut wrong = right.clone();
            mistake(&mut wrong);
            let found = proved(&wrong);
            assert!(found.as_ref().is_err_and(|why| why.is_wrong()), "{name}: {found:?}");
        }
    });
}
