//! Tensors that a block makes on the way, made wrongly although the block's output is right.

use std::fs;
use std::time::Duration;

use acb_fuse::engine::Limits;
use acb_fuse::pipeline::claim::claims;
use acb_fuse::pipeline::fuse;
use acb_fuse::plan::{BlockNames, Wanted, plan};
use acb_fuse::verify::proof::prove;

use super::scene::{Made, original, with_model};
use crate::support::cases;

/// Operators of which one is put between the right tensor and the by-product's name.
const MISTAKES: [&str; 2] = ["Neg", "Exp"];

#[test]
fn a_wrong_byproduct_of_a_right_block_is_caught() {
    for case in ["byproduct_of_channels_last", "byproduct_of_rows", "byproduct_behind_a_sum"] {
        with_model(fs::read(cases::model(case)).unwrap(), |reader, meanings| {
            let mut names = BlockNames::of(reader.graph);
            let plan = plan(reader, meanings, &mut names, Wanted::default());
            let block = plan.blocks.iter().find(|block| block.byproduct.is_some()).unwrap();
            let terms = fuse::terms(reader, meanings, &plan, block).unwrap();
            let right = Made::of(&fuse::fused(reader, block, &terms).unwrap());
            let tensors: Vec<_> = block.tensors_made().collect();
            let limits = Limits::new(Duration::from_secs(60), 1 << 30);
            let proved = |made: &Made| {
                let claims = claims(reader, meanings, (block, &tensors), &made.side());
                claims
                    .iter()
                    .map(|claim| prove(&original(reader), claim, limits))
                    .collect::<Vec<_>>()
            };
            assert!(proved(&right).iter().all(Result::is_ok), "{case}");
            let byproduct = reader.graph.value(tensors[1]).name;
            for operator in MISTAKES {
                let mut wrong = right.clone();
                let mut nodes = wrong.nodes.iter_mut();
                for node in nodes.by_ref() {
                    let names = node.input.iter_mut().chain(&mut node.output);
                    names
                        .filter(|name| *name == byproduct)
                        .for_each(|name| name.push_str(".right"));
                }
                let mut mistake = wrong.nodes[0].clone();
                mistake.op_type = Some(operator.to_owned());
                mistake.attribute.clear();
                mistake.input = vec![format!("{byproduct}.right")];
                mistake.output = vec![byproduct.to_owned()];
                wrong.nodes.push(mistake);
                let found = proved(&wrong);
                assert!(found[0].is_ok(), "{case} {operator}: {found:?}");
                let is_caught = found[1].as_ref().is_err_and(|why| why.is_wrong());
                assert!(is_caught, "{case} {operator}: {found:?}");
            }
        });
    }
}
