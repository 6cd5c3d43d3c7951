//! Cuts the nodes of a side into stages, of so few nodes each that what they read fits a budget.
//!
//! Knows names and how much stands behind them; runs nothing.

use std::collections::{HashMap, HashSet};

use crate::engine::{Constant, EngineError};
use crate::onnx::node::from_front;
use crate::onnx::proto::NodeProto;

/// A node, and what has to be known of it to put it into a stage.
#[derive(Debug)]
pub struct WeighedNode {
    /// The node.
    pub node: NodeProto,
    /// Approximate count of numbers that its outputs take in the engine.
    pub numbers: usize,
    /// What must hold before it runs.
    pub demand: Option<ChannelDemand>,
}

/// A tensor, and the number of channels that it must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelDemand {
    /// The name of the tensor.
    pub tensor: String,
    /// The number of channels.
    pub channels: usize,
    /// The channel axis, counted from the end if negative.
    pub axis: i64,
}

impl ChannelDemand {
    /// Checks that the tensor, which has this shape if it is there, has these channels.
    ///
    /// # Errors
    /// Returns an error if it does not have them, or is not there.
    pub fn check(&self, shape: Option<&[usize]>) -> Result<(), EngineError> {
        let size = |shape: &[usize]| shape.get(from_front(self.axis, shape.len())?).copied();
        if shape.and_then(size) == Some(self.channels) {
            return Ok(());
        }
        Err(EngineError::Failed(format!(
            "a convolution of {} channels reads others",
            self.channels
        )))
    }
}

/// Nodes that are in the engine at a time.
#[derive(Debug, Default)]
pub struct ProofStage {
    /// The nodes, in their order.
    pub nodes: Vec<NodeProto>,
    /// Constants that they read.
    pub constants: Vec<Constant>,
    /// Tensors that they read and that are fed or made by earlier stages.
    pub inputs: Vec<String>,
    /// What must hold for these tensors.
    pub demands: Vec<ChannelDemand>,
    /// Tensors that they make and that a later stage or the caller wants.
    pub outputs: Vec<String>,
    /// Tensors, made by this stage or before it, that nobody reads behind it.
    pub last_read: Vec<String>,
}

/// Cuts `nodes` where they and their constants would have more than `most` numbers together; a
/// stage has at least one node. A tensor of which something is demanded is made by an earlier
/// stage, and what is `wanted` becomes an output.
pub fn cut(
    nodes: Vec<WeighedNode>,
    constants: &HashMap<String, Constant>,
    wanted: &HashSet<String>,
    most: usize,
) -> Vec<ProofStage> {
    let mut stages: Vec<ProofStage> = Vec::new();
    let (mut numbers, mut held) = (usize::MAX, HashSet::new());
    for WeighedNode { node, numbers: own, demand } in nodes {
        let count = |name: &&String| {
            let constant = constants.get(*name)?;
            Some(constant.numbers.as_ref().map_or(0, |numbers| numbers.count()))
        };
        let read: HashSet<&String> = node.input.iter().collect();
        let new = read.iter().filter(|name| !held.contains(**name)).filter_map(count);
        let weight = new.fold(own, usize::saturating_add);
        numbers = numbers.saturating_add(weight);
        let makes = |stage: &ProofStage, demand: &ChannelDemand| {
            stage.nodes.iter().any(|node| node.output.contains(&demand.tensor))
        };
        let is_made_here = stages.last().zip(demand.as_ref()).is_some_and(|(a, b)| makes(a, b));
        if numbers > most || is_made_here || stages.is_empty() {
            stages.push(ProofStage::default());
            held.clear();
            numbers = read.iter().filter_map(count).fold(own, usize::saturating_add);
        }
        let Some(stage) = stages.last_mut() else { continue };
        for name in &node.input {
            if let Some(constant) = constants.get(name)
                && held.insert(name.clone())
            {
                stage.constants.push(constant.clone());
            }
        }
        stage.demands.extend(demand.filter(|demand| !stage.demands.contains(demand)));
        stage.nodes.push(node);
    }
    connect(&mut stages, constants, wanted);
    stages
}

/// Determines what goes from stage to stage.
fn connect(
    stages: &mut [ProofStage],
    constants: &HashMap<String, Constant>,
    wanted: &HashSet<String>,
) {
    let mut last: HashMap<String, usize> = HashMap::new();
    for (at, stage) in stages.iter_mut().enumerate() {
        let made: HashSet<&String> = stage.nodes.iter().flat_map(|node| &node.output).collect();
        let mut seen = HashSet::new();
        for name in stage.nodes.iter().flat_map(|node| &node.input) {
            if !name.is_empty() && !constants.contains_key(name) && seen.insert(name) {
                last.insert(name.clone(), at);
                if !made.contains(name) {
                    stage.inputs.push(name.clone());
                }
            }
        }
    }
    for (at, stage) in stages.iter_mut().enumerate() {
        let last_of = |name: &String| last.get(name).copied();
        let made = stage.nodes.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty());
        for name in made {
            let is_read_later = last_of(name).is_some_and(|last| last > at);
            if is_read_later || wanted.contains(name) {
                stage.outputs.push(name.clone());
                if !is_read_later {
                    stage.last_read.push(name.clone());
                }
            }
        }
        let done = stage.inputs.iter().filter(|name| last_of(name) == Some(at));
        let done: Vec<String> = done.cloned().collect();
        stage.last_read.extend(done);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::onnx::write;

    #[test]
    fn what_is_read_twice_counts_once_and_lives_until_its_last_reader() {
        let constant = |name: &str, count: usize| {
            (name.to_owned(), Constant::doubles(name, &[], Arc::new(vec![0.0; count])))
        };
        let constants = HashMap::from([constant("k", 5), constant("l", 3)]);
        let node = |inputs: &[&str], output: &str| WeighedNode {
            node: write::node("Add", "", inputs, output, vec![]),
            numbers: 1,
            demand: None,
        };
        let nodes = || {
            vec![
                node(&["x", "k"], "a"),
                node(&["a", "k"], "b"),
                node(&["b", "l"], "c"),
                node(&["c", "a"], "d"),
            ]
        };
        let wanted = HashSet::from(["b".to_owned(), "d".to_owned()]);
        let cut = |most: usize| {
            let stages = cut(nodes(), &constants, &wanted, most);
            let words = |stage: &ProofStage| {
                let constants = stage.constants.iter().map(Constant::name).collect::<String>();
                let of = |names: &[String]| names.concat();
                let nodes = stage.nodes.len();
                let [ins, outs] = [&stage.inputs, &stage.outputs].map(|names| of(names));
                format!("{nodes} {constants} {ins}>{outs} -{}", of(&stage.last_read))
            };
            stages.iter().map(words).collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(cut(12), "4 kl x>bd -bdx");
        assert_eq!(cut(11), "3 kl x>abc -bx | 1  ca>d -dca");
        assert_eq!(cut(7), "2 k x>ab -x | 2 l ba>d -dba");
        assert_eq!(cut(0), "1 k x>a -x | 1 k a>b - | 1 l b>c -b | 1  ca>d -dca");
    }
}
