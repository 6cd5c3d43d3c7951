//! Neutral names for tensors and dimensions: tract never sees a name of the file.
//!
//! tract reads the name of a dimension as arithmetic: `"64"` as a size, and a thousand
//! parentheses recursively, on its stack. It derives names from names, and long ones overflow
//! it, too. So every tensor becomes `t0`, `t1`, …, and every open dimension gets a name of its
//! own: that two have the same name in the file is no promise that they are equal.
//!
//! Knows the messages of ONNX as tract decodes them, and no operator.

use std::collections::HashMap;
use std::mem;

use tract_onnx::pb;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::prelude::TractError;

/// The mapping between the file's names of tensors and the names that tract sees.
#[derive(Debug, Default)]
pub(super) struct NeutralNames {
    numbers: HashMap<String, usize>,
    originals: Vec<String>,
}

impl NeutralNames {
    /// Renames all tensors in `graph`. A body refers to the tensors around it by their names, so
    /// equal names stay equal.
    pub fn neutralize(&mut self, graph: &mut pb::GraphProto) {
        let mut dimensions = 0usize;
        for input in &mut graph.input {
            for dim in dimensions_of(input).filter(|dim| is_open(dim)) {
                dim.value = Some(Value::DimParam(format!("size{dimensions}")));
                dimensions = dimensions.saturating_add(1);
            }
        }
        self.rename(graph);
    }

    fn rename(&mut self, graph: &mut pb::GraphProto) {
        graph.value_info.clear();
        graph.name.clear();
        for info in graph.input.iter_mut().chain(&mut graph.output) {
            self.rename_one(&mut info.name);
        }
        for output in &mut graph.output {
            dimensions_of(output).for_each(|dim| dim.value = None);
        }
        for stored in &mut graph.initializer {
            self.rename_one(&mut stored.name);
        }
        for sparse in &mut graph.sparse_initializer {
            sparse.values.iter_mut().for_each(|values| self.rename_one(&mut values.name));
        }
        for node in &mut graph.node {
            node.name.clear();
            node.input.iter_mut().chain(&mut node.output).for_each(|name| self.rename_one(name));
            for attribute in &mut node.attribute {
                for body in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                    // What is fed to a body has sizes already.
                    let open = body.input.iter_mut().flat_map(dimensions_of).filter(|d| is_open(d));
                    open.for_each(|dim| dim.value = None);
                    self.rename(body);
                }
            }
        }
    }

    fn rename_one(&mut self, name: &mut String) {
        let neutral = self.neutral(mem::take(name));
        *name = neutral;
    }

    /// Returns the neutral name of a tensor; an empty name stays empty.
    pub fn neutral(&mut self, name: impl Into<String>) -> String {
        let name = name.into();
        if name.is_empty() {
            return name;
        }
        let next = self.originals.len();
        let number = *self.numbers.entry(name).or_insert_with_key(|name| {
            self.originals.push(name.clone());
            next
        });
        format!("t{number}")
    }

    /// Returns the file's name for `neutral`, or `None` if it is no tensor of the file.
    pub fn original(&self, neutral: &str) -> Option<&str> {
        let number = neutral.strip_prefix('t')?.parse().ok()?;
        self.originals.get::<usize>(number).map(String::as_str)
    }

    /// Returns the error of tract with neutral names replaced by those of the file.
    pub fn in_words_of_the_file(&self, error: &TractError) -> TractError {
        let text = format!("{error:#}");
        let mut said = String::with_capacity(text.len());
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        for word in text.split_inclusive(|letter| !is_part(letter)) {
            let end = word.trim_end_matches(|letter| !is_part(letter));
            match self.original(end) {
                Some(original) => {
                    said.extend(original.escape_debug());
                    said.push_str(word.strip_prefix(end).unwrap_or_default());
                }
                None => said.push_str(word),
            }
        }
        TractError::msg(said)
    }
}

/// Whether the size of a dimension is not declared: it is a name, a negative number, or missing.
fn is_open(dim: &Dimension) -> bool {
    !matches!(dim.value, Some(Value::DimValue(size)) if size >= 0)
}

fn dimensions_of(info: &mut pb::ValueInfoProto) -> impl Iterator<Item = &mut Dimension> {
    let value = info.r#type.as_mut().and_then(|declared| declared.value.as_mut());
    let shape = value.and_then(|value| {
        let pb::type_proto::Value::TensorType(tensor) = value;
        tensor.shape.as_mut()
    });
    shape.into_iter().flat_map(|shape| &mut shape.dim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        let mut names = NeutralNames::default();
        assert_eq!(names.neutral(""), "");
        let long = "(".repeat(100_000);
        for (name, neutral) in [("t1", "t0"), (&long, "t1"), ("a\nb", "t2"), ("t1", "t0")] {
            assert_eq!(names.neutral(name), neutral);
            assert_eq!(names.original(neutral), Some(name));
        }
        for other in ["t3", "t", "x0", "t0 node", ""] {
            assert_eq!(names.original(other), None, "{other}");
        }
        let said = names.in_words_of_the_file(&TractError::msg("node \"t2 node\" (t2): t7, at2"));
        assert_eq!(said.to_string(), "node \"a\\nb node\" (a\\nb): t7, at2");
    }
}
