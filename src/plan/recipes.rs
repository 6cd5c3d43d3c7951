//! How forms are made: the steps that the search has found on shapes, to be taken again on
//! weights.
//!
//! Knows forms and what nodes mean; does not decide which steps pay.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::affine::{Affine, Linear, Refusal};
use crate::emit::term::Term;
use crate::onnx::ids::NodeId;
use crate::onnx::model::Invalid;
use crate::ops::meaning::LinearOp;
use crate::ops::meanings::Meanings;
use crate::ops::reader::Reader;
use crate::plan::form::{Form, FormStep};

/// A node, with the number of the recipe by which it is planned, if it is planned.
#[derive(Debug, Clone, Copy)]
pub struct PlannedNode {
    /// The node.
    pub id: NodeId,
    /// The number of its recipe; `None` if the node stands as in the file.
    pub recipe: Option<usize>,
}

/// The steps to one form.
#[derive(Debug, Clone)]
struct Recipe {
    /// The node that the form begins with, as it was planned before.
    start: PlannedNode,
    /// The steps from there.
    steps: Vec<FormStep<PlannedNode>>,
}

/// The steps to all forms that were planned for a graph, each under its number. No recipe needs
/// one of a higher number.
#[derive(Debug, Clone, Default)]
pub struct Recipes(Vec<Recipe>);

/// Why the weights of a form cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The model is malformed.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The weights do not allow what the shapes allowed.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// A kernel is computed by a sub-graph that the engine cannot run.
    #[error("a kernel is computed by constant nodes that could not be evaluated")]
    NotEvaluated,
}

impl Recipes {
    /// Notes the steps from a node, or from what it was planned as; returns the number of the
    /// recipe.
    pub fn note(&mut self, start: PlannedNode, steps: Vec<FormStep<PlannedNode>>) -> usize {
        self.0.push(Recipe { start, steps });
        self.0.len().saturating_sub(1)
    }

    /// Returns the terms of form `wanted`, with their weights.
    ///
    /// # Errors
    /// Returns an error if a weight cannot be read or computed, or does not allow what the
    /// shapes allowed.
    pub fn with_weights(
        &self,
        wanted: usize,
        meanings: &Meanings,
        reader: &Reader,
    ) -> Result<Vec<Term<Affine>>, WeightError> {
        let constants = reader.constants;
        let lift = |map: &LinearOp| map.affine(constants)?.ok_or(WeightError::NotEvaluated);
        let mut uses = self.uses(wanted);
        let mut made: HashMap<usize, Form<Affine>> = HashMap::new();
        for number in uses.keys().copied().collect::<Vec<_>>() {
            let Some(recipe) = self.0.get(number) else { continue };
            let mut take = |node: PlannedNode| {
                let form = match node.recipe {
                    Some(number) => taken(&mut made, &mut uses, number),
                    None => Form::of_node(meanings, node.id, &Affine::identity(), lift)?,
                };
                form.ok_or(WeightError::NotEvaluated)
            };
            let mut form = take(recipe.start)?;
            for step in &recipe.steps {
                match step {
                    FormStep::Select(selected) => form.select(selected),
                    FormStep::Join => form.join(reader)?,
                    FormStep::Stack if form.stack(reader, meanings) => {}
                    FormStep::Stack => return Err(Refusal::View.into()),
                    FormStep::Through(node) => {
                        let Some(at) = reader.graph.node(node.id).output() else { continue };
                        form.go_through(at, take(*node)?, reader)?;
                    }
                    FormStep::AsOne(node, through) => {
                        let Some(at) = reader.graph.node(node.id).output() else { continue };
                        let mut sum = take(*node)?;
                        for &inner in through {
                            let Some(at) = reader.graph.node(inner.id).output() else { continue };
                            sum.go_through(at, take(inner)?, reader)?;
                        }
                        form.go_through(at, sum, reader)?;
                    }
                    FormStep::Mean(id) => {
                        let Some(at) = reader.graph.node(*id).output() else { continue };
                        let means = Form::of_means(meanings, *id, Affine::identity());
                        form.go_through(at, means.ok_or(Refusal::View)?, reader)?;
                    }
                }
            }
            made.insert(number, form);
        }
        Ok(made.remove(&wanted).map(|form| form.terms).unwrap_or_default())
    }

    /// Returns form `number` and the forms that it is made of, each behind those that it needs,
    /// and how often each is needed.
    fn uses(&self, number: usize) -> BTreeMap<usize, usize> {
        let mut uses = BTreeMap::from([(number, 0)]);
        let mut open = BTreeSet::from([number]);
        while let Some(number) = open.pop_last() {
            let Some(recipe) = self.0.get(number) else { continue };
            let through = recipe.steps.iter().flat_map(FormStep::entered);
            let through = through.filter_map(|node| node.recipe);
            for needed in through.chain(recipe.start.recipe) {
                let count: &mut usize = uses.entry(needed).or_default();
                *count = count.saturating_add(1);
                open.insert(needed);
            }
        }
        uses
    }
}

/// Returns form `number`. The form is moved to the last step that needs it, so that sums of
/// thousands of operands are not copied at every step.
fn taken<L: Linear>(
    made: &mut HashMap<usize, Form<L>>,
    uses: &mut BTreeMap<usize, usize>,
    number: usize,
) -> Option<Form<L>> {
    let left = uses.get_mut(&number)?;
    *left = left.saturating_sub(1);
    if *left == 0 { made.remove(&number) } else { made.get(&number).cloned() }
}
