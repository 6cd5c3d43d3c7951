//! The description of a region by its branches: in words, `3×3 + 1×3 + 3×1`, and for a drawing.
//!
//! Knows what the nodes mean and what the region becomes; names no paper and no network.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use std::iter::{once, repeat};
use std::sync::Arc;

use crate::affine::{ConvKind, Geometry, times};
use crate::emit::term::{Term, TermKind};
use crate::facts::roles;
use crate::onnx::ids::{NodeId, ValueId};
use crate::ops::meaning::{LinearOp, Meaning};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::computed::computed_kernel;
use crate::plan::region::Region;

/// Upper bound on the branches that are described; a block with more is described by its first
/// ones.
const MAX_BRANCHES: usize = 64;

/// Separator before a branch that is added to the one before it.
const PLUS: &str = " + ";

/// Separator before a branch that stands beside the one before it, in a Concat.
const BESIDE: &str = " | ";

/// A block's branches from what they read to their sum, and what comes after it, each step as a
/// text such as `3×3`, `norm`, `scale` or `identity`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drawing {
    /// The branches; the last one may stand for further ones.
    pub branches: Vec<Vec<Arc<str>>>,
    /// What all branches have in common at their end.
    pub after: Vec<Arc<str>>,
}

/// Describes a region by its branches.
pub struct Branches<'a, 'g, 'm> {
    /// The graph.
    pub reader: &'a Reader<'g, 'm>,
    /// What its nodes compute.
    pub meanings: &'a Meanings,
    /// The region.
    pub region: &'a Region,
    /// The terms that it becomes.
    pub terms: &'a [Term<Geometry>],
}

/// The description of one node on the way through a branch.
#[derive(Clone)]
struct Step {
    node: Option<NodeId>,
    text: Arc<str>,
    is_kernel: bool,
}

impl Branches<'_, '_, '_> {
    /// Returns the branches in words, and as they may be drawn: one per path from `value` to a
    /// root.
    pub fn of(&self, value: ValueId) -> (String, Arc<Drawing>) {
        let mut branches: Vec<Vec<Step>> = vec![];
        let mut signs: Vec<&str> = vec![];
        let mut open = vec![(value, Vec::new(), "")];
        while let Some((value, mut path, sign)) = open.pop() {
            if branches.len() + open.len() > MAX_BRANCHES {
                branches.push(vec![Step { node: None, text: "…".into(), is_kernel: true }]);
                signs.push(PLUS);
                break;
            }
            let source = self.meanings.source(value);
            let at_cut = source != self.region.output && self.region.cuts.contains(&source);
            let producer = self.reader.graph.value(source).producer.filter(|_| !at_cut);
            match producer.and_then(|producer| Some((producer, self.meanings.get(producer)?))) {
                Some((node, Meaning::Linear(input, map))) => {
                    path.extend(self.step(node, map));
                    open.push((*input, path, sign));
                }
                Some((_, Meaning::Parted(whole, _))) => open.push((*whole, path, sign)),
                Some((_, meaning @ (Meaning::Sum(_) | Meaning::Joined(_)))) => {
                    let between = if matches!(meaning, Meaning::Sum(_)) { PLUS } else { BESIDE };
                    let signed = once(sign).chain(repeat(between));
                    let operands: Vec<_> = meaning.operands().into_iter().zip(signed).collect();
                    let last_first = operands.into_iter().rev();
                    open.extend(last_first.map(|(operand, sign)| (operand, path.clone(), sign)));
                }
                _ => {
                    if !path.iter().any(|step| step.is_kernel) {
                        let text = self.operand(source).into();
                        path.push(Step { node: None, text, is_kernel: true });
                    }
                    path.reverse();
                    branches.push(path);
                    signs.push(sign);
                }
            }
        }
        let mut words = String::new();
        for (branch, sign) in branches.iter().zip(signs) {
            let kernels = branch.iter().filter(|step| step.is_kernel);
            for (kernel, arrow) in kernels.zip(once(sign).chain(repeat(" → "))) {
                words.extend([arrow, &kernel.text]);
            }
        }
        (words, Arc::new(drawing(&branches)))
    }

    fn step(&self, node: NodeId, map: &LinearOp) -> Option<Step> {
        let is_norm = roles::is_batch_norm(self.reader.graph.node(node));
        let step = |text, is_kernel| Step { node: Some(node), text, is_kernel };
        match map {
            _ if is_norm => Some(step("norm".into(), false)),
            LinearOp::Diagonal { .. } => Some(step("scale".into(), false)),
            _ => text_of(map).map(|text| step(self.told(node, text).into(), true)),
        }
    }

    /// Returns the text of a kernel; one that nodes compute today, and that is only stored in
    /// their place, is called computed.
    fn told(&self, node: NodeId, text: String) -> String {
        let is_alone = self.region.nodes.len() == 1;
        let is_computed = || computed_kernel(self.reader, self.meanings, node).is_some();
        if is_alone && is_computed() { format!("computed {text}") } else { text }
    }

    /// Returns the text of a root that is added as it is: part of a kernel, or an operand that
    /// stays.
    fn operand(&self, root: ValueId) -> String {
        let plain =
            |term: &Term<Geometry>| term.root == root && matches!(term.kind, TermKind::Identity(_));
        if self.terms.iter().any(plain) {
            format!("`{}`", self.reader.graph.value(root).name)
        } else {
            "identity".to_owned()
        }
    }
}

/// Moves what all branches have in common at their end behind their sum.
fn drawing(branches: &[Vec<Step>]) -> Drawing {
    let texts = |steps: &[Step]| steps.iter().map(|step| step.text.clone()).collect();
    let (first, others) = match branches {
        [first, others @ ..] if !others.is_empty() => (first, others),
        _ => {
            let branches = branches.iter().map(|branch| texts(branch)).collect();
            return Drawing { branches, after: Vec::new() };
        }
    };
    let is_common = |back: usize, step: &Step| {
        step.node.is_some()
            && others.iter().all(|branch| {
                branch.iter().rev().nth(back).is_some_and(|other| other.node == step.node)
            })
    };
    let common = first.iter().rev().enumerate().take_while(|(back, step)| is_common(*back, step));
    let common = common.count();
    let own = |branch: &Vec<Step>| texts(branch.get(..branch.len() - common).unwrap_or_default());
    let after = first.get(first.len() - common..).unwrap_or_default();
    Drawing { branches: branches.iter().map(own).collect(), after: texts(after) }
}

/// Returns what a map is called in a branch; `None` if it is not mentioned.
fn text_of(map: &LinearOp) -> Option<String> {
    match map {
        LinearOp::Conv { geometry, .. } => Some(match geometry.kind {
            ConvKind::Conv => kernel_size(geometry),
            ConvKind::MatMul => "matrix".to_owned(),
            ConvKind::ConvTranspose => format!("transposed {}", kernel_size(geometry)),
        }),
        LinearOp::Bordered { map, .. } => text_of(map),
        LinearOp::Filter { windows, .. } if windows.iter().any(|window| window.taps > 1) => {
            Some(format!("mean {}", kernel_size(&map.geometry())))
        }
        _ => None,
    }
}

/// Returns the size of a kernel: `3×3`, or `3×3 dilated 2`.
fn kernel_size(geometry: &Geometry) -> String {
    let windows = &geometry.windows;
    let taps: Vec<i64> = windows.iter().map(|window| window.taps).collect();
    if windows.iter().all(|window| window.taps == 1 || window.dilation == 1) {
        return times(&taps);
    }
    let mut dilations: Vec<i64> = windows.iter().map(|window| window.dilation).collect();
    dilations.dedup();
    format!("{} dilated {}", times(&taps), times(&dilations))
}
