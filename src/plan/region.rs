//! A region and its normal form: the part of a graph that computes one tensor as a sum of
//! convolutions, `y = Σ L(r) + b`.
//!
//! [`Region::evaluate`] computes that on shapes or on weights. Knows the mathematics and what
//! nodes mean; not where regions should end, nor what they cost.

use std::collections::BTreeSet;
use std::iter::{once, repeat};

use crate::affine::{Affine, Linear, Refusal};
use crate::emit::term::{Term, TermKind};
use crate::facts::validity::Validity;
use crate::onnx::ids::{IdMap, NodeId, ValueId};
use crate::onnx::model::Invalid;
use crate::ops::meaning::{LinearOp, Meaning, Sign};
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::merge::{are_of_one_rank, insert, kind_of};

/// A connected part of the graph that computes one tensor linearly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The tensor it computes.
    pub output: ValueId,
    /// Tensors at which it stops: its roots are among them.
    pub cuts: BTreeSet<ValueId>,
    /// Its nodes, in topological order.
    pub nodes: Vec<NodeId>,
    /// Those of them that are read only together with another one.
    pub steps: BTreeSet<NodeId>,
}

/// Why the weights of a region cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The model is malformed.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The weights refuse what the shapes allowed.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// A kernel is computed by a sub-graph that the engine cannot run.
    #[error("a kernel is computed by constant nodes that could not be evaluated")]
    NotEvaluated,
}

impl Region {
    /// The region of `output` that stops at `cuts`.
    pub fn new(
        reader: &Reader,
        meanings: &Meanings,
        output: ValueId,
        cuts: BTreeSet<ValueId>,
    ) -> Self {
        let graph = reader.graph;
        let (mut nodes, mut between) = (BTreeSet::new(), BTreeSet::new());
        let mut wanted = vec![output];
        while let Some(value) = wanted.pop() {
            let at_cut = value != output && cuts.contains(&value);
            let Some(producer) = graph.value(value).producer.filter(|_| !at_cut) else { continue };
            let Some(meaning) = meanings.get(producer) else { continue };
            if matches!(meaning, Meaning::Opaque(_)) {
                continue;
            }
            if nodes.insert(producer) {
                between.extend(meanings.consumed(producer));
                wanted.extend(meaning.operands());
            }
        }
        let steps: BTreeSet<NodeId> = between.difference(&nodes).copied().collect();
        nodes.extend(&steps);
        Region { output, cuts, nodes: nodes.into_iter().collect(), steps }
    }

    /// The nodes that were read each on its own.
    pub fn read_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied().filter(|id| !self.steps.contains(id))
    }

    /// The region's normal form: one term per root and window; and for which inputs it is
    /// right. `lift` makes a map of what a node was read as.
    ///
    /// # Errors
    /// What `lift` returns, or that maps do not compose.
    pub fn evaluate<L: Linear, E: From<Refusal>>(
        &self,
        meanings: &Meanings,
        reader: &Reader,
        identity: &L,
        lift: impl Fn(&LinearOp) -> Result<L, E>,
    ) -> Result<(Vec<Term<L>>, Validity), E> {
        let mut valid = Validity::default();
        for &id in &self.nodes {
            meanings.validity(id).into_iter().for_each(|own| valid.intersect(own));
        }
        let mut forms = Forms::of(self, meanings, identity);
        for id in self.read_nodes() {
            let Some(output) = reader.graph.node(id).output() else { continue };
            let form = match meanings.get(id) {
                Some(Meaning::Linear(input, LinearOp::View(view))) => {
                    let terms = forms.take(*input).into_iter();
                    terms.map(|term| term.viewed(view)).collect()
                }
                Some(Meaning::Linear(input, map)) => {
                    mapped(&forms.take(*input), lift(map)?, kind_of(map))?
                }
                Some(Meaning::Sum(operands)) => {
                    let mut terms = Vec::new();
                    for &(sign, operand) in operands {
                        let summands = forms.take(operand);
                        if terms.is_empty() && sign == Sign::Plus {
                            terms = summands;
                            continue;
                        }
                        for summand in summands {
                            insert(&mut terms, summand.signed(sign), reader, &mut valid)?;
                        }
                    }
                    terms
                }
                _ => continue,
            };
            forms.made.insert(output, form);
        }
        Ok((forms.made.remove(&self.output).unwrap_or_default(), valid))
    }

    /// The region's normal form with its weights.
    ///
    /// # Errors
    /// If a weight cannot be read or computed, or is not what the shapes allowed.
    pub fn with_weights(
        &self,
        meanings: &Meanings,
        reader: &Reader,
    ) -> Result<Vec<Term<Affine>>, WeightError> {
        let lift = |map: &LinearOp| map.affine(reader.constants)?.ok_or(WeightError::NotEvaluated);
        let (terms, _) = self.evaluate(meanings, reader, &Affine::identity(), lift)?;
        Ok(terms)
    }
}

/// `map` applied to a form.
fn mapped<L: Linear>(form: &[Term<L>], map: L, kind: TermKind) -> Result<Vec<Term<L>>, Refusal> {
    if form.len() > 1 && !are_of_one_rank(form.iter()) {
        return Err(Refusal::Ranks);
    }
    let bare = map.clone().unshifted();
    // The shift counts once, however many terms there are.
    let maps = once(&map).chain(repeat(&bare));
    form.iter().zip(maps).map(|(term, map)| term.mapped(map, kind)).collect()
}

/// The forms of the tensors inside a region, as far as they are made.
struct Forms<'a, L> {
    region: &'a Region,
    meanings: &'a Meanings,
    identity: &'a L,
    made: IdMap<ValueId, Vec<Term<L>>>,
    /// How many of the region's nodes will take each.
    uses: IdMap<ValueId, usize>,
}

impl<'a, L: Linear> Forms<'a, L> {
    fn of(region: &'a Region, meanings: &'a Meanings, identity: &'a L) -> Self {
        let mut uses: IdMap<ValueId, usize> = IdMap::default();
        for meaning in region.read_nodes().filter_map(|id| meanings.get(id)) {
            if matches!(meaning, Meaning::Alias(_)) {
                continue;
            }
            for operand in meaning.operands() {
                let count = uses.entry(meanings.source(operand)).or_default();
                *count = count.saturating_add(1);
            }
        }
        Forms { region, meanings, identity, made: IdMap::default(), uses }
    }

    /// The form of `value`: itself, where the region stops. It moves to its last reader;
    /// sums of thousands of operands are not copied at every step.
    fn take(&mut self, value: ValueId) -> Vec<Term<L>> {
        let root = self.meanings.source(value);
        let itself = || {
            let (map, kind) = (self.identity.clone(), TermKind::Identity(Sign::Plus));
            vec![Term::new(root, map, kind)]
        };
        if self.region.cuts.contains(&root) {
            return itself();
        }
        let left = self.uses.entry(root).or_default();
        *left = left.saturating_sub(1);
        let form = if *left == 0 { self.made.remove(&root) } else { self.made.get(&root).cloned() };
        form.unwrap_or_else(itself)
    }
}
