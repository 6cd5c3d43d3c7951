//! Names that are new: in a model whose names are anybody's, and among those given before.
//!
//! Knows which names are taken; not what they are names of.

use std::collections::{HashMap, HashSet};

use crate::onnx::graph::Graph;
use crate::onnx::node::bodies;
use crate::onnx::proto::{GraphProto, TensorProto, ValueInfoProto};

/// `suffix`, with a number if need be, so that no name in `graph` or its bodies contains it:
/// names that end in it, or go on after it, are new.
pub fn fresh(graph: &Graph, suffix: &str) -> String {
    fresh_among(suffix, &all_names(graph))
}

/// Gives out names, each once: the same ones whenever it is asked in the same order.
#[derive(Debug, Default)]
pub struct UniqueNames {
    given: HashSet<String>,
    /// The number that was last tried for a name of this base.
    tried: HashMap<String, usize>,
}

impl UniqueNames {
    /// `base`, or `base_2`, `base_3`, … if that was given before.
    pub fn unique(&mut self, base: &str) -> String {
        let number = self.tried.entry(base.to_owned()).or_default();
        loop {
            *number = number.saturating_add(1);
            let name = if *number == 1 { base.to_owned() } else { format!("{base}_{number}") };
            if self.given.insert(name.clone()) {
                return name;
            }
        }
    }
}

fn fresh_among(suffix: &str, names: &[&str]) -> String {
    let digits = |rest: &str| rest.bytes().take_while(u8::is_ascii_digit).count();
    let numbers = names.iter().flat_map(|name| name.split(suffix).skip(1)).map(digits);
    match numbers.max() {
        None => suffix.to_owned(),
        Some(0) => format!("{suffix}2"),
        // A number longer than all that follow the suffix.
        Some(longest) => format!("{suffix}1{}", "0".repeat(longest)),
    }
}

/// Every name in use anywhere in the graph, bodies included; some more than once.
fn all_names<'g>(graph: &'g Graph) -> Vec<&'g str> {
    let mut names: Vec<&str> = graph.values().map(|(_, value)| value.name.as_str()).collect();
    for (_, node) in graph.nodes() {
        names.push(node.proto.name());
        bodies(&node.proto).for_each(|body| names_in(body, &mut names));
    }
    names
}

fn names_in<'n>(graph: &'n GraphProto, names: &mut Vec<&'n str>) {
    names.extend(graph.input.iter().map(ValueInfoProto::name));
    names.extend(graph.initializer.iter().map(TensorProto::name));
    for node in &graph.node {
        names.push(node.name());
        names.extend(node.input.iter().chain(&node.output).map(String::as_str));
        bodies(node).for_each(|body| names_in(body, names));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_suffix_is_in_no_name() {
        for (names, expected) in [
            (&["x", "fused"][..], ".fused"),
            (&["x.fused", "y"], ".fused2"),
            (&["x.fused.fused12", "y.fused3"], ".fused100"),
        ] {
            assert_eq!(fresh_among(".fused", names), expected);
            assert!(!names.iter().any(|name| name.contains(expected)), "{expected}");
        }
    }

    #[test]
    fn names_are_given_once() {
        let mut names = UniqueNames::default();
        let given = ["a", "a_2", "a", "a", "b"].map(|base| names.unique(base));
        assert_eq!(given, ["a", "a_2", "a_3", "a_4", "b"]);
    }
}
