//! New names: different from all names in a given model, and from each other.
//!
//! Knows which names are taken; not what they name.

use std::collections::{HashMap, HashSet};

use crate::onnx::graph::Graph;
use crate::onnx::node::bodies;
use crate::onnx::proto::{FunctionProto, GraphProto, NodeProto};
use crate::onnx::schema::{annotation_field, graph_field, info_field};

/// Returns `suffix`, extended by a number if necessary, so that no name in `graph`, its bodies
/// or the functions of its model contains it: names that end in it, or in which more follows
/// it, are new.
pub fn fresh(graph: &Graph, suffix: &str) -> String {
    let mut seen = Suffixed::new(suffix);
    graph.values().for_each(|(_, value)| seen.see(value.name));
    seen.see_declared(graph);
    // The tensors that nodes read and produce are those of the graph.
    graph.nodes().for_each(|(_, node)| seen.see_named(&node.proto));
    for function in &graph.model.functions {
        // Malformed entries are refused when they are read.
        let function = graph.model.decode(function, "function").ok();
        function.iter().for_each(|function| seen.see_function(function));
    }
    seen.fresh()
}

/// A generator of distinct names; the same sequence of requests gives the same names.
#[derive(Debug, Default)]
pub struct UniqueNames {
    given: HashSet<String>,
    /// For each base, the number that was tried last.
    tried: HashMap<String, usize>,
}

impl UniqueNames {
    /// Returns `base`, or `base_2`, `base_3`, … if that was given before.
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

/// A scan for names that contain a suffix.
struct Suffixed<'s> {
    suffix: &'s str,
    /// The number of digits of the longest number that follows the suffix; `None` if no name
    /// contains it.
    longest: Option<usize>,
}

impl<'s> Suffixed<'s> {
    fn new(suffix: &'s str) -> Self {
        Suffixed { suffix, longest: None }
    }

    fn see(&mut self, name: &str) {
        let digits = |rest: &str| rest.bytes().take_while(u8::is_ascii_digit).count();
        let longest = name.split(self.suffix).skip(1).map(digits).max();
        self.longest = self.longest.max(longest);
    }

    /// Sees the names that entries of `graph` describe, even if no tensor has them: a
    /// description of a missing tensor would apply to a new one of its name.
    fn see_declared(&mut self, graph: &Graph) {
        for (number, name) in [
            (graph_field::VALUE_INFO, info_field::NAME),
            (graph_field::QUANTIZATION_ANNOTATION, annotation_field::TENSOR_NAME),
        ] {
            let fields = graph.fields.fields(number);
            // A name that is not UTF-8 cannot be that of a new tensor.
            fields
                .filter_map(|field| graph.model.str_within(&field.payload, name).ok())
                .for_each(|name| self.see(name));
        }
    }

    fn see_node(&mut self, node: &NodeProto) {
        node.input.iter().chain(&node.output).for_each(|name| self.see(name));
        self.see_named(node);
    }

    /// Sees all names in `node` except those of the tensors that it reads and produces.
    fn see_named(&mut self, node: &NodeProto) {
        self.see(node.name());
        bodies(node).for_each(|body| self.see_body(body));
    }

    fn see_body(&mut self, body: &GraphProto) {
        let infos = body.input.iter().chain(&body.output).chain(&body.value_info);
        infos.for_each(|info| self.see(info.name()));
        let sparse = body.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_deref());
        body.initializer.iter().chain(sparse).for_each(|tensor| self.see(tensor.name()));
        body.quantization_annotation.iter().for_each(|told| self.see(told.tensor_name()));
        body.node.iter().for_each(|node| self.see_node(node));
    }

    /// Sees the names in `function`: when it is inlined, they become parts of new names.
    fn see_function(&mut self, function: &FunctionProto) {
        function.input.iter().chain(&function.output).for_each(|name| self.see(name));
        function.value_info.iter().for_each(|info| self.see(info.name()));
        function.node.iter().for_each(|node| self.see_node(node));
    }

    fn fresh(&self) -> String {
        let suffix = self.suffix;
        match self.longest {
            None => suffix.to_owned(),
            Some(0) => format!("{suffix}2"),
            // A number longer than any that follows the suffix.
            Some(longest) => format!("{suffix}1{}", "0".repeat(longest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::onnx::model::Model;
    use crate::onnx::proto::{
        AttributeProto, ModelProto, SparseTensorProto, TensorAnnotation, TensorProto,
        ValueInfoProto,
    };
    use crate::onnx::storage::Storage;
    use crate::onnx::write;

    #[test]
    fn a_fresh_suffix_is_in_no_name() {
        for (names, expected) in [
            (&["x", "fused"][..], ".fused"),
            (&["x.fused", "y"], ".fused2"),
            (&["x.fused.fused12", "y.fused3"], ".fused100"),
        ] {
            let mut seen = Suffixed::new(".fused");
            names.iter().for_each(|name| seen.see(name));
            assert_eq!(seen.fresh(), expected);
            assert!(!names.iter().any(|name| name.contains(expected)), "{expected}");
        }
    }

    #[test]
    fn names_are_given_once() {
        let mut names = UniqueNames::default();
        let given = ["a", "a_2", "a", "a", "b"].map(|base| names.unique(base));
        assert_eq!(given, ["a", "a_2", "a_3", "a_4", "b"]);
    }

    /// A place where a name may occur, and a function that puts it there in a model.
    type NamePlace = (&'static str, fn(&mut ModelProto, String));

    fn info(name: String) -> ValueInfoProto {
        ValueInfoProto { name: Some(name), ..Default::default() }
    }

    fn relu(name: String, output: &str) -> NodeProto {
        write::node("Relu", &name, &["x"], output, vec![])
    }

    fn in_body(model: &mut ModelProto, body: GraphProto) {
        let body = AttributeProto { g: Some(Box::new(body)), ..Default::default() };
        let node = write::node("If", "", &["x"], "y", vec![body]);
        model.graph.as_mut().unwrap().node.push(node);
    }

    fn in_function(model: &mut ModelProto, function: FunctionProto) {
        model.functions.push(function);
    }

    const PLACES: &[NamePlace] = &[
        ("a node", |model, name| model.graph.as_mut().unwrap().node.push(relu(name, "y"))),
        ("a tensor", |model, name| {
            model.graph.as_mut().unwrap().node.push(relu(String::new(), &name));
        }),
        ("a description", |model, name| {
            model.graph.as_mut().unwrap().value_info.push(info(name));
        }),
        ("an annotation", |model, name| {
            let told = TensorAnnotation { tensor_name: Some(name), ..Default::default() };
            model.graph.as_mut().unwrap().quantization_annotation.push(told);
        }),
        ("a node of a body", |model, name| {
            in_body(model, GraphProto { node: vec![relu(name, "b")], ..Default::default() });
        }),
        ("a description in a body", |model, name| {
            in_body(model, GraphProto { value_info: vec![info(name)], ..Default::default() });
        }),
        ("a sparse tensor of a body", |model, name| {
            let values = TensorProto { name: Some(name), ..Default::default() };
            let sparse = SparseTensorProto { values: Some(Box::new(values)), ..Default::default() };
            in_body(model, GraphProto { sparse_initializer: vec![sparse], ..Default::default() });
        }),
        ("an input of a function", |model, name| {
            in_function(model, FunctionProto { input: vec![name], ..Default::default() });
        }),
        ("a tensor of a function", |model, name| {
            let node = vec![relu(String::new(), &name)];
            in_function(model, FunctionProto { node, ..Default::default() });
        }),
        ("a description in a function", |model, name| {
            let value_info = vec![info(name)];
            in_function(model, FunctionProto { value_info, ..Default::default() });
        }),
    ];

    #[test]
    fn a_name_is_seen_wherever_it_stands() {
        for (place, put) in PLACES {
            let mut proto = write::model(17, vec![info("x".to_owned())], vec![], vec![], &["x"]);
            put(&mut proto, "a.fused7".to_owned());
            let model = Model::index(proto.encode_to_vec().into(), Storage::default()).unwrap();
            let graphs = Graph::read_all(&model).unwrap();
            assert_eq!(fresh(&graphs[0], ".fused"), ".fused10", "{place}");
        }
    }
}
