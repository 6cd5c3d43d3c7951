//! A node with the tensors that it may read.

use acb_fuse::engine::Array;
use acb_fuse::onnx::proto::{AttributeProto, NodeProto};
use acb_fuse::onnx::storage::Storage;
use ndarray::ArrayD;

use super::{Stop, Tensors};

pub(super) struct Node<'n> {
    pub node: &'n NodeProto,
    pub tensors: &'n Tensors,
    pub storage: &'n Storage,
}

impl Node<'_> {
    /// Returns whether input number `index` is given.
    pub fn has(&self, index: usize) -> bool {
        self.node.input.get(index).is_some_and(|name| !name.is_empty())
    }

    pub fn any(&self, index: usize) -> Result<&Array, Stop> {
        let name = self.node.input.get(index).ok_or("an input is left out")?;
        self.tensors.get(name).ok_or_else(|| Stop::Wrong(format!("nothing makes {name}")))
    }

    pub fn float(&self, index: usize) -> Result<&ArrayD<f64>, Stop> {
        match self.any(index)? {
            Array::Float(values) => Ok(values),
            Array::Int(_) => Err(Stop::Wrong(format!("{} holds integers", self.node.input[index]))),
        }
    }

    pub fn integers(&self, index: usize) -> Result<Vec<i64>, Stop> {
        match self.any(index)? {
            Array::Int(values) => Ok(values.iter().copied().collect()),
            Array::Float(_) => Err(Stop::Wrong(format!("{} is no list", self.node.input[index]))),
        }
    }

    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name() == name)
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, AttributeProto::i)
    }

    pub fn number(&self, name: &str, default: f64) -> f64 {
        self.attribute(name).map_or(default, |attribute| f64::from(attribute.f()))
    }

    pub fn text(&self, name: &str, default: &'static str) -> &str {
        let text =
            self.attribute(name).map(|attribute| std::str::from_utf8(attribute.s()).unwrap());
        text.unwrap_or(default)
    }

    pub fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name).map(|attribute| attribute.ints.clone())
    }

    /// Returns a list of integers, an attribute or, in newer operator sets, input number `index`.
    pub fn list(&self, name: &str, index: usize) -> Result<Vec<i64>, Stop> {
        let found = self.list_if_any(name, index)?;
        found.ok_or_else(|| Stop::Wrong(format!("there are no {name}")))
    }

    pub fn list_if_any(&self, name: &str, index: usize) -> Result<Option<Vec<i64>>, Stop> {
        if let Some(list) = self.ints(name) {
            return Ok(Some(list));
        }
        self.has(index).then(|| self.integers(index)).transpose()
    }
}
