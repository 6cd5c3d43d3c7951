//! The shape rules, applied to a graph: each fact is worked out once, when somebody asks.
//!
//! A fact is worked out from others: dimensions from those of the operands, back to the graph's
//! inputs and constants; a demand from the readers, on to the graph's outputs. A rule that asks
//! for a fact that is not known yet is asked again once it is: so nothing is worked out that no
//! rule asks for, and no graph is too deep. A size of which nothing is known has a name, that of
//! its tensor's axis, until the answer is handed out as numbers.
//!
//! Knows the graph and its constants; knows neither the engine nor any operator by name.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::InputShapes;
use crate::facts::constants::Constants;
use crate::facts::inference::{demanded_extents, listed_extents, output_extents};
use crate::facts::shape_rules::asked::{
    Dims, Integers, MAX_INTEGERS, MAX_RANK, SymbolicOperands, agreed,
};
use crate::facts::shape_rules::extent::{
    Extent, Extents, NamedSize, extents, known, number, numbers,
};
use crate::onnx::data;
use crate::onnx::graph::Graph;
use crate::onnx::ids::{Table, ValueId};
use crate::onnx::info;
use crate::onnx::node::Node;
use crate::onnx::proto::tensor_proto::DataType;

/// The sources from which facts about operands may be worked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Their producers alone.
    Made,
    /// Their readers too, if the producer does not tell the rank. Demands are worked out from
    /// facts of the other level, so that nothing goes round in a circle.
    Full,
}

/// A question about one tensor.
#[derive(Debug, Clone, Copy)]
enum Question {
    Dims(Level, ValueId),
    Integers(Level, ValueId),
    Demand(ValueId),
}

/// No shapes given by the user.
pub static NO_SHAPES: InputShapes = InputShapes::new();

/// The graph, constants and input shapes that facts come from.
#[derive(Clone, Copy)]
struct GraphFacts<'g, 'm> {
    graph: &'g Graph<'m>,
    constants: &'g Constants<'g, 'm>,
    inputs: &'g InputShapes,
}

/// The facts of one graph, and what they are worked out from.
pub struct Facts<'a, 'g, 'm> {
    source: GraphFacts<'g, 'm>,
    answers: MutexGuard<'a, Answers>,
}

/// All answers that were worked out for one graph.
#[derive(Default)]
pub struct Answers {
    made: KnownFacts,
    full: KnownFacts,
    demanded: Table<ValueId, Option<Extents>>,
}

/// The facts of one level.
#[derive(Default)]
struct KnownFacts {
    dims: Table<ValueId, Option<Extents>>,
    integers: Table<ValueId, Option<Extents>>,
}

impl<'a, 'g, 'm> Facts<'a, 'g, 'm> {
    /// Returns the facts for `inputs` of these shapes, whatever the file leaves open of them;
    /// `answers` are the answers so far.
    pub fn new(
        graph: &'g Graph<'m>,
        constants: &'g Constants<'g, 'm>,
        inputs: &'g InputShapes,
        answers: &'a Mutex<Answers>,
    ) -> Self {
        let source = GraphFacts { graph, constants, inputs };
        Facts { source, answers: answers.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Returns the dimensions of `tensor`.
    pub fn dims(&mut self, tensor: ValueId) -> Option<Dims> {
        self.extents(tensor).map(numbers)
    }

    /// Returns the dimensions of `tensor`, with names for those that are not known.
    pub fn extents(&mut self, tensor: ValueId) -> Option<Extents> {
        self.settle(Question::Dims(Level::Full, tensor));
        self.answers.full.dims.get(tensor).cloned().flatten()
    }

    /// Whether `tensor` is known to have no elements along an axis behind the first one.
    pub fn is_empty_behind_batch(&mut self, tensor: ValueId) -> bool {
        self.settle(Question::Dims(Level::Full, tensor));
        let extents = self.answers.full.dims.get(tensor).and_then(Option::as_deref);
        let mut sizes = extents.unwrap_or_default().iter().skip(1).flatten();
        sizes.any(|extent| matches!(extent, Extent::Number(0)))
    }

    /// Returns the integers that `tensor` holds.
    pub fn integers(&mut self, tensor: ValueId) -> Option<Integers> {
        self.settle(Question::Integers(Level::Full, tensor));
        self.answers.full.integers.get(tensor).cloned().flatten().map(numbers)
    }

    /// Returns the dimensions that the readers of `tensor` demand.
    pub fn demanded(&mut self, tensor: ValueId) -> Option<Dims> {
        self.settle(Question::Demand(tensor));
        self.answers.demanded.get(tensor).cloned().flatten().map(numbers)
    }

    fn settle(&mut self, question: Question) {
        let mut open = vec![question];
        while let Some(&next) = open.last() {
            if self.answers.has(next) {
                open.pop();
                continue;
            }
            let missing = RefCell::default();
            let (answers, source) = (&*self.answers, self.source);
            let answer = Answering { answers, source, missing: &missing }.answer(next);
            let missing = missing.into_inner();
            if missing.is_empty() {
                self.answers.note(next, answer);
                open.pop();
            } else {
                open.extend(missing);
            }
        }
    }
}

impl Answers {
    /// Returns answers in which these dimensions of tensors are known, whatever the file says of
    /// them.
    pub fn given(tensors: impl Iterator<Item = (ValueId, Option<Dims>)>) -> Self {
        let mut answers = Answers::default();
        tensors.for_each(|(tensor, dims)| {
            answers.note(Question::Dims(Level::Made, tensor), dims.map(extents));
        });
        answers
    }

    fn of(&self, level: Level) -> &KnownFacts {
        match level {
            Level::Made => &self.made,
            Level::Full => &self.full,
        }
    }

    fn has(&self, question: Question) -> bool {
        match question {
            Question::Dims(level, id) => self.of(level).dims.contains(id),
            Question::Integers(level, id) => self.of(level).integers.contains(id),
            Question::Demand(id) => self.demanded.contains(id),
        }
    }

    fn note(&mut self, question: Question, answer: Option<Extents>) {
        let (table, id) = match question {
            Question::Dims(Level::Made, id) => (&mut self.made.dims, id),
            Question::Dims(Level::Full, id) => (&mut self.full.dims, id),
            Question::Integers(Level::Made, id) => (&mut self.made.integers, id),
            Question::Integers(Level::Full, id) => (&mut self.full.integers, id),
            Question::Demand(id) => (&mut self.demanded, id),
        };
        let is_of_dims = matches!(question, Question::Dims(..));
        // Otherwise, facts about thousands of axes would be copied from node to node.
        let mut answer = answer.filter(|list| !is_of_dims || list.len() <= MAX_RANK);
        if let Some(dims) = answer.as_mut().filter(|_| is_of_dims) {
            for (axis, size) in (0..).zip(dims) {
                size.get_or_insert(Extent::SizeOf(NamedSize { tensor: id, axis, more: 0 }));
            }
        }
        table.insert(id, answer);
    }
}

/// A function that returns what the shape rules say of an output of a node.
type DimsQuestion = fn(&Node, i64, usize, &dyn SymbolicOperands) -> Option<Extents>;

/// One question that is being answered from the facts so far; `missing` collects what else must
/// be known for it.
struct Answering<'a, 'g, 'm> {
    answers: &'a Answers,
    source: GraphFacts<'g, 'm>,
    missing: &'a RefCell<Vec<Question>>,
}

impl Answering<'_, '_, '_> {
    fn answer(&self, question: Question) -> Option<Extents> {
        match question {
            Question::Dims(Level::Made, id) => self.made_dims(id),
            Question::Dims(Level::Full, id) => self.full_dims(id),
            Question::Integers(level, id) => self.all_integers(level, id),
            Question::Demand(id) => self.demand(id),
        }
    }

    fn dims(&self, level: Level, id: ValueId) -> Option<Extents> {
        let known = self.answers.of(level).dims.get(id);
        if known.is_none() {
            self.missing.borrow_mut().push(Question::Dims(level, id));
        }
        known.cloned().flatten()
    }

    fn integers(&self, level: Level, id: ValueId) -> Option<Extents> {
        let known = self.answers.of(level).integers.get(id);
        if known.is_none() {
            self.missing.borrow_mut().push(Question::Integers(level, id));
        }
        known.cloned().flatten()
    }

    fn demanded(&self, id: ValueId) -> Option<Extents> {
        let known = self.answers.demanded.get(id);
        if known.is_none() {
            self.missing.borrow_mut().push(Question::Demand(id));
        }
        known.cloned().flatten()
    }

    /// Returns what `rule` says of output `id`, given what is known of the operands.
    fn by_rule(&self, level: Level, id: ValueId, rule: DimsQuestion) -> Option<Extents> {
        let graph = self.source.graph;
        let node = graph.node(graph.value(id).producer?);
        let output = node.outputs.iter().position(|output| *output == Some(id))?;
        rule(node, graph.model.opset, output, &OfNode { answering: self, level, node })
    }

    fn made_dims(&self, id: ValueId) -> Option<Extents> {
        let GraphFacts { graph, constants, inputs } = self.source;
        let is_constant = constants.contains(id);
        if graph.value(id).producer.is_none() && !is_constant {
            return declared(graph, id, inputs).map(extents);
        }
        let ruled = self.by_rule(Level::Made, id, output_extents);
        let is_whole = || ruled.as_ref().is_some_and(|dims| are_numbers(dims));
        if !is_constant || is_whole() || !self.missing.borrow().is_empty() {
            return ruled;
        }
        let dims = constants.dims(id).ok()??;
        dims.into_iter().map(|size| Some(Some(i64::try_from(size).ok()?.into()))).collect()
    }

    fn full_dims(&self, id: ValueId) -> Option<Extents> {
        if let Some(made) = self.dims(Level::Made, id) {
            return Some(made);
        }
        let ruled = self.by_rule(Level::Full, id, output_extents);
        if ruled.is_some() || !self.missing.borrow().is_empty() {
            return ruled;
        }
        self.demanded(id)
    }

    fn all_integers(&self, level: Level, id: ValueId) -> Option<Extents> {
        let constants = self.source.constants;
        let made = if level == Level::Full { self.integers(Level::Made, id) } else { None };
        if made.is_some() || !self.missing.borrow().is_empty() {
            return made;
        }
        let ruled = self.by_rule(level, id, listed_extents);
        let is_whole = || ruled.as_ref().is_some_and(|all| are_numbers(all));
        let is_stored = constants.contains(id) && level == Level::Made;
        if !is_stored || is_whole() || !self.missing.borrow().is_empty() {
            return ruled;
        }
        let element_type = constants.element_type(id).map(DataType::try_from);
        let Some(Ok(DataType::Int64 | DataType::Int32 | DataType::Bool)) = element_type else {
            return None;
        };
        let tensor = constants.tensor(id).ok()??;
        let is_short = data::elements(&tensor).ok()? <= MAX_INTEGERS;
        let integers = if is_short { constants.integers(id).ok()?? } else { return None };
        Some(known(&integers))
    }

    /// Returns what the readers of `id` demand; `None` also if two readers contradict each
    /// other, since one of them is then not valid.
    fn demand(&self, id: ValueId) -> Option<Extents> {
        let graph = self.source.graph;
        let mut all: Option<Extents> = None;
        let mut last = None;
        for &reader in &graph.value(id).readers {
            // A reader that reads it several times is asked about all these inputs at once.
            if last.replace(reader) == Some(reader) {
                continue;
            }
            let node = graph.node(reader);
            let operands = OfNode { answering: self, level: Level::Made, node };
            let inputs = node.inputs.iter().enumerate();
            for (input, _) in inputs.filter(|(_, input)| **input == Some(id)) {
                let Some(dims) = demanded_extents(node, graph.model.opset, input, &operands) else {
                    continue;
                };
                all = Some(match all {
                    Some(all) => agreed(&all, &dims)?,
                    None => dims,
                });
            }
        }
        all
    }
}

fn are_numbers(extents: &[Option<Extent>]) -> bool {
    extents.iter().all(|&extent| number(extent).is_some())
}

/// The operands of a node, while a question is being answered.
struct OfNode<'a, 'g, 'm> {
    answering: &'a Answering<'a, 'g, 'm>,
    level: Level,
    node: &'a Node,
}

impl SymbolicOperands for OfNode<'_, '_, '_> {
    fn dims(&self, input: usize) -> Option<Extents> {
        self.answering.dims(self.level, self.node.input(input)?)
    }

    fn integers(&self, input: usize) -> Option<Extents> {
        self.answering.integers(self.level, self.node.input(input)?)
    }

    fn factors(&self, input: usize) -> Option<Vec<f32>> {
        self.answering.source.constants.factors(self.node.input(input)?)
    }

    fn demanded(&self, output: usize) -> Option<Extents> {
        self.answering.demanded(self.node.outputs.get(output).copied().flatten()?)
    }
}

/// Returns the dimensions of an input of the main graph: those that the user gives, else those
/// that the file declares to whoever runs it.
pub fn declared(graph: &Graph, input: ValueId, given: &InputShapes) -> Option<Dims> {
    let value = graph.value(input);
    let field = value.input.as_ref().filter(|_| graph.outer.is_none())?;
    if let Some(shape) = given.get(value.name) {
        return shape.iter().map(|&size| i64::try_from(size).map(Some).ok()).collect();
    }
    info::dims(&graph.model.decode(field, "graph input").ok()?)
}
