//! New nodes that turn a tensor back read it from before it was turned: mistakes about that.

use std::fs;
use std::time::Duration;

use acb_fuse::Options;
use acb_fuse::emit::nodes::FusedNodes;
use acb_fuse::engine::Limits;
use acb_fuse::onnx::proto::NodeProto;
use acb_fuse::pipeline::analysis::GraphAnalysis;
use acb_fuse::pipeline::byproducts::{leave_out_unread, reading_what_is_missing};
use acb_fuse::pipeline::claim::claims;
use acb_fuse::pipeline::fate::{Fate, MadeBlock};
use acb_fuse::pipeline::fuse;
use acb_fuse::plan::{BlockNames, Wanted, plan};
use acb_fuse::refusal::Reason;
use acb_fuse::verify::claim::Claim;
use acb_fuse::verify::proof::prove;

use super::scene::{Made, original, with_model};
use crate::support::cases;

/// A mistake about the Transpose that makes a root, and whether both sides compute different
/// results then; otherwise no node makes what the new nodes read, or it has other channels.
type Mistake = (&'static str, fn(&mut NodeProto), bool);

const MISTAKES: [Mistake; 6] = [
    ("another order", |node| node.attribute[0].ints = vec![0, 3, 2, 1], true),
    ("not turned", |node| node.attribute[0].ints = vec![0, 1, 2, 3], false),
    ("no order", |node| node.attribute.clear(), false),
    ("no permutation", |node| node.attribute[0].ints = vec![0, 2, 2, 1], false),
    ("another operator", |node| node.op_type = Some("Identity".into()), false),
    ("an operator of others", |node| node.domain = Some("of.others".into()), false),
];

#[test]
fn a_mistake_about_a_turned_root_is_caught() {
    for case in
        ["turned_root_read_twice", "turned_root_behind_a_pad", "turned_root_that_others_read"]
    {
        with_model(fs::read(cases::model(case)).unwrap(), |reader, meanings| {
            let mut names = BlockNames::of(reader.graph);
            let plan = plan(reader, meanings, &mut names, Wanted::default());
            let block = plan.blocks.iter().find(|block| !block.turned_roots.is_empty()).unwrap();
            let terms = fuse::terms(reader, meanings, &plan, block).unwrap();
            let made = Made::of(&fuse::fused(reader, block, &terms).unwrap());
            let tensors: Vec<_> = block.tensors_made().collect();
            let claims = claims(reader, meanings, (block, &tensors), &made.side());
            let (claim, limits) = (&claims[0], Limits::new(Duration::from_secs(60), 1 << 30));
            let proved = |turned: Vec<NodeProto>| {
                let claim = Claim { turned, ..claim.clone() };
                prove(&original(reader), &claim, limits)
            };
            assert!(proved(claim.turned.clone()).is_ok(), "{case}");
            assert!(proved(vec![]).is_err(), "{case}");
            for (mistake, make, differs) in MISTAKES {
                let mut turned = claim.turned.clone();
                make(&mut turned[0]);
                let found = proved(turned).expect_err(mistake);
                assert_eq!(found.is_wrong(), differs, "{case}, {mistake}: {found}");
            }
        });
    }
}

/// A change to the block that makes the root.
type Change = (&'static str, fn(&mut Fate));

const CHANGES: [Change; 4] = [
    ("it is left alone", |fate| *fate = Fate::LeftAlone(Reason::Limit("none"))),
    ("its last node is another one", |fate| {
        nodes(fate).last_mut().unwrap().attribute[0].ints.swap(1, 2);
    }),
    ("its by-product has another name", |fate| {
        nodes(fate).iter_mut().for_each(|node| {
            let names = node.input.iter_mut().chain(&mut node.output);
            names.filter(|name| name.ends_with(".nchw")).for_each(|name| name.push('2'));
        });
    }),
    ("its output is not turned", |fate| nodes(fate).truncate(1)),
];

fn nodes(fate: &mut Fate) -> &mut Vec<NodeProto> {
    match fate {
        Fate::Made(made) => &mut made.fused.nodes,
        Fate::LeftAlone(reason) => panic!("{reason}"),
    }
}

#[test]
fn a_byproduct_that_is_not_made_is_not_read() {
    for (case, is_unread) in
        [("turned_root_behind_a_pad", true), ("turned_root_that_others_read", false)]
    {
        with_model(fs::read(cases::model(case)).unwrap(), |reader, _| {
            let analyses =
                GraphAnalysis::of_all(std::slice::from_ref(reader), &Options::default(), &[])
                    .unwrap();
            let GraphAnalysis { meanings, plan, .. } = &analyses[0];
            let made = |fused: FusedNodes| {
                let (fingerprints, proof, compared) = (vec![], None, None);
                Fate::Made(MadeBlock { fused, fingerprints, proof, compared })
            };
            let fates = || -> Vec<Fate> {
                let blocks = plan.blocks.iter().map(|block| {
                    let terms = fuse::terms(reader, meanings, plan, block).unwrap();
                    made(fuse::fused(reader, block, &terms).unwrap())
                });
                blocks.collect()
            };
            let mut right = fates();
            assert!(reading_what_is_missing(&analyses[0], &right).is_empty(), "{case}");
            leave_out_unread(&analyses[0], &mut right);
            assert_eq!(nodes(&mut right[0]).len(), if is_unread { 1 } else { 2 }, "{case}");
            for (what, change) in CHANGES {
                let mut changed = fates();
                change(&mut changed[0]);
                assert_eq!(reading_what_is_missing(&analyses[0], &changed), [1], "{case}: {what}");
            }
        });
    }
}
