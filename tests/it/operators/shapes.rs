//! Checks every shape rule against the shapes in ONNX's own tests and those that ONNX Runtime
//! gives (`fixtures/export/shapes.py`): whatever a rule says must be right, however little it is
//! told. What rules say is counted, so that the loss of a rule shows.
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use acb_fuse::engine::{self, InputShapes, Limits, Source, dialect};
use acb_fuse::facts::constants::Constants;
use acb_fuse::facts::inference::{demanded_extents, listed_extents, output_extents};
use acb_fuse::facts::shape_rules::{
    Dims, Extent, Extents, NamedSize, Operands, SymbolicOperands, agreed, input_dims, output_dims,
    output_integers,
};
use acb_fuse::facts::shapes::Sizes;
use acb_fuse::onnx::graph::Graph;
use acb_fuse::onnx::model::Model;
use acb_fuse::onnx::node::Node;
use acb_fuse::onnx::proto::tensor_shape_proto::Dimension;
use acb_fuse::onnx::proto::tensor_shape_proto::dimension::Value;
use acb_fuse::onnx::proto::{ModelProto, TensorShapeProto, ValueInfoProto, type_proto};
use acb_fuse::onnx::storage::Storage;
use acb_fuse::onnx::tensor;
use expect_test::expect_file;
use prost::Message;

/// A model, and the true shapes and values of its tensors.
struct Case {
    name: String,
    proto: ModelProto,
    truth: Truth,
}

#[derive(Default)]
struct Truth {
    /// A size is `None` if ONNX infers another one than ONNX Runtime gives: no rule may say
    /// anything there.
    dims: BTreeMap<String, Dims>,
    integers: BTreeMap<String, Vec<i64>>,
    factors: BTreeMap<String, Vec<f32>>,
}

impl Truth {
    fn of(proto: &ModelProto) -> Self {
        let mut truth = Truth::default();
        for stored in &proto.graph.as_ref().unwrap().initializer {
            if let (Ok(values), [_]) =
                (tensor::floats(stored, &Storage::default()), &stored.dims[..])
            {
                let values = values.iter().map(|&value| value as f32).collect();
                truth.factors.insert(stored.name().to_owned(), values);
            }
        }
        for info in &proto.graph.as_ref().unwrap().value_info {
            let Some(shape) = shape_of(info) else { continue };
            let size = |dim: &Dimension| match dim.value {
                Some(Value::DimValue(size)) => Some(size),
                _ => None,
            };
            truth.dims.insert(info.name().to_owned(), shape.dim.iter().map(size).collect());
            if let Some(list) = info.metadata_props.first() {
                let list = list.value().split(',').filter(|one| !one.is_empty());
                let list = list.map(|one| one.parse().unwrap()).collect();
                truth.integers.insert(info.name().to_owned(), list);
            }
        }
        truth
    }
}

fn shape_of(info: &ValueInfoProto) -> Option<&TensorShapeProto> {
    match info.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => tensor.shape.as_ref(),
        _ => None,
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for file in ["node_tests", "variants"] {
        let bytes = fs::read(format!("fixtures/shapes/{file}.bin")).unwrap();
        let mut left = &bytes[..];
        while !left.is_empty() {
            let proto = ModelProto::decode_length_delimited(&mut left).unwrap();
            let name = proto.graph.as_ref().unwrap().name().to_owned();
            cases.push(Case { name, truth: Truth::of(&proto), proto });
        }
    }
    cases
}

/// Returns whether a rule is told the size of axis, or the integer, `axis` of operand `input`.
type Told = fn(usize, usize) -> bool;

/// How much rules are told: everything about operands; their sizes alone; every other size and
/// integer; their ranks and integers alone.
const TOLD: [(&str, Told, Told); 4] = [
    ("all", |_, _| true, |_, _| true),
    ("sizes", |_, _| true, |_, _| false),
    (
        "half",
        |input, axis| (input + axis).is_multiple_of(2),
        |input, at| !(input + at).is_multiple_of(2),
    ),
    ("ranks", |_, _| false, |_, _| true),
];

/// What a rule is told about the operands of one node.
struct Supposed<'a> {
    node: &'a Node,
    truth: &'a Truth,
    sizes: Told,
    integers: Told,
    /// An operand about which the rule is told nothing.
    hidden: Option<usize>,
}

fn told(values: &[Option<i64>], input: usize, told: Told) -> Vec<Option<i64>> {
    values.iter().enumerate().map(|(at, &value)| value.filter(|_| told(input, at))).collect()
}

impl Operands for Supposed<'_> {
    fn dims(&self, input: usize) -> Option<Dims> {
        let dims = self.truth.dims.get(&self.node.proto.input[input])?;
        (self.hidden != Some(input)).then(|| told(dims, input, self.sizes))
    }

    fn integers(&self, input: usize) -> Option<Vec<Option<i64>>> {
        let integers = self.truth.integers.get(&self.node.proto.input[input])?;
        let integers: Vec<Option<i64>> = integers.iter().copied().map(Some).collect();
        let told = told(&integers, input, self.integers);
        (self.hidden != Some(input) && told.iter().any(Option::is_some)).then_some(told)
    }

    fn factors(&self, input: usize) -> Option<Vec<f32>> {
        let factors = self.truth.factors.get(&self.node.proto.input[input]);
        factors.filter(|_| (self.integers)(input, 0)).cloned()
    }

    fn demanded(&self, output: usize) -> Option<Dims> {
        let dims = self.truth.dims.get(&self.node.proto.output[output])?;
        Some(told(dims, output, self.sizes))
    }
}

/// The same, with a name for each size that is not told.
struct Named<'a>(Supposed<'a>);

impl SymbolicOperands for Named<'_> {
    fn dims(&self, input: usize) -> Option<Extents> {
        let tensor = self.0.node.input(input)?;
        let truth = self.0.truth.dims.get(&self.0.node.proto.input[input])?;
        let told = self.0.dims(input)?.into_iter().zip(truth).enumerate();
        let name = |axis: usize| {
            Extent::SizeOf(NamedSize { tensor, axis: axis.try_into().unwrap(), more: 0 })
        };
        // A size that has a name is at least 1.
        let size = |(axis, (told, truth)): (usize, (Option<i64>, &Option<i64>))| match truth {
            Some(..1) | None => told.map(Extent::Number),
            Some(_) => told.map(Extent::Number).or_else(|| Some(name(axis))),
        };
        Some(told.map(size).collect())
    }

    fn integers(&self, input: usize) -> Option<Extents> {
        let told = self.0.integers(input)?;
        Some(told.into_iter().map(|integer| integer.map(Extent::Number)).collect())
    }

    fn factors(&self, input: usize) -> Option<Vec<f32>> {
        self.0.factors(input)
    }

    fn demanded(&self, output: usize) -> Option<Extents> {
        let told = self.0.demanded(output)?;
        Some(told.into_iter().map(|size| size.map(Extent::Number)).collect())
    }
}

impl Named<'_> {
    /// Returns what a rule said, with numbers for names, and how many were names.
    fn in_numbers(&self, graph: &Graph, said: &Extents) -> (Dims, usize) {
        let of = |size: NamedSize| {
            let dims = &self.0.truth.dims[graph.value(size.tensor).name];
            Some(dims[usize::from(size.axis)]? + i64::from(size.more))
        };
        let in_numbers = said.iter().map(|extent| match (*extent)? {
            Extent::Number(number) => Some(number),
            Extent::SizeOf(size) => of(size),
        });
        let is_name = |extent: &&Option<Extent>| matches!(extent, Some(Extent::SizeOf(_)));
        (in_numbers.collect(), said.iter().filter(is_name).count())
    }
}

/// A share: how many of how many.
#[derive(Default, Clone, Copy)]
struct Share(usize, usize);

impl Share {
    fn add(&mut self, known: usize, all: usize) {
        self.0 += known;
        self.1 += all;
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// Counts of what the rules said of one operator, by how much they were told.
#[derive(Default)]
struct Said {
    nodes: usize,
    ranks: [Share; TOLD.len()],
    sizes: [Share; TOLD.len()],
    integers: [Share; TOLD.len()],
    demands: [Share; TOLD.len()],
    /// Sizes and integers that are given by the names of operands' sizes.
    names: [Share; TOLD.len()],
}

fn indexed(proto: &ModelProto) -> Model {
    Model::index(proto.encode_to_vec().into(), Storage::default()).unwrap()
}

/// Returns how many numbers are known; those must agree with the truth.
fn known(
    said: &[Option<i64>],
    truth: &[Option<i64>],
    failures: &mut Vec<String>,
    what: &str,
) -> usize {
    let is_right = said.len() == truth.len()
        && said.iter().zip(truth).all(|(said, truth)| said.is_none() || said == truth);
    if !is_right {
        failures.push(format!("{what}: {said:?} is said of {truth:?}"));
    }
    said.iter().flatten().count()
}

#[test]
fn rules_say_what_onnx_says() {
    let mut all: BTreeMap<String, Said> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in cases() {
        let model = indexed(&case.proto);
        let graphs =
            Graph::read_all(&model).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        for (_, node) in graphs[0].nodes() {
            let Some(op) = node.standard_op() else { continue };
            let said = all.entry(op.to_owned()).or_default();
            said.nodes += 1;
            for (at, (knowledge, sizes, integers)) in TOLD.into_iter().enumerate() {
                let what = format!("{} {} told of {knowledge}", case.name, node.label());
                let truth = &case.truth;
                let operands = Supposed { node, truth, sizes, integers, hidden: None };
                for (output, name) in node.proto.output.iter().enumerate() {
                    let Some(dims) = truth.dims.get(name) else { continue };
                    let found = output_dims(node, model.opset, output, &operands);
                    said.ranks[at].add(found.is_some().into(), 1);
                    let found = found.map_or(0, |found| known(&found, dims, &mut failures, &what));
                    said.sizes[at].add(found, dims.len());
                    let Some(list) = truth.integers.get(name) else { continue };
                    let found = output_integers(node, model.opset, output, &operands);
                    let list: Vec<Option<i64>> = list.iter().copied().map(Some).collect();
                    let found = found.map_or(0, |found| known(&found, &list, &mut failures, &what));
                    said.integers[at].add(found, list.len());
                }
                let named = Named(operands);
                for (output, name) in node.proto.output.iter().enumerate() {
                    let Some(dims) = truth.dims.get(name) else { continue };
                    let found = output_extents(node, model.opset, output, &named);
                    let list = listed_extents(node, model.opset, output, &named);
                    let integers = truth.integers.get(name).into_iter().flatten();
                    let integers: Vec<Option<i64>> = integers.copied().map(Some).collect();
                    let list = list.filter(|_| truth.integers.contains_key(name));
                    for (found, truth) in [(found, dims), (list, &integers)] {
                        let Some(found) = found else { continue };
                        let (found, names) = named.in_numbers(&graphs[0], &found);
                        known(&found, truth, &mut failures, &format!("{what} by names"));
                        said.names[at].add(names, truth.len());
                    }
                }
                for (input, name) in node.proto.input.iter().enumerate() {
                    let found = demanded_extents(node, model.opset, input, &named);
                    if let Some((found, dims)) = found.zip(truth.dims.get(name)) {
                        let (found, _) = named.in_numbers(&graphs[0], &found);
                        known(&found, dims, &mut failures, &format!("{what} demanded by names"));
                    }
                }
                for (input, name) in node.proto.input.iter().enumerate() {
                    let Some(dims) = truth.dims.get(name) else { continue };
                    let mut most = 0;
                    for hidden in [None, Some(input)] {
                        let operands = Supposed { node, truth, sizes, integers, hidden };
                        let found = input_dims(node, model.opset, input, &operands);
                        let found = found.map(|found| known(&found, dims, &mut failures, &what));
                        most = most.max(found.unwrap_or_default());
                    }
                    said.demands[at].add(most, dims.len());
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}\n{} rules fail", failures.join("\n"), failures.len());
    expect_file![std::env::current_dir().unwrap().join("fixtures/shapes/rules.md")]
        .assert_eq(&table(&all));
}

fn table(all: &BTreeMap<String, Said>) -> String {
    let told = TOLD.map(|(name, ..)| name).join(", ");
    let mut table = format!(
        "What the shape rules say of so many, told of {told}.\n\n\
         | operator | nodes | ranks | sizes | integers | sizes demanded | named by those of operands |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    let shares = |shares: [Share; TOLD.len()]| match shares[0].1 {
        0 => String::new(),
        all => format!("{} of {all}", shares.map(|share| share.0.to_string()).join(", ")),
    };
    for (op, said) in all {
        let [ranks, sizes, integers, demands, names] =
            [said.ranks, said.sizes, said.integers, said.demands, said.names].map(shares);
        let nodes = said.nodes;
        writeln!(
            table,
            "| {op} | {nodes} | {ranks} | {sizes} | {integers} | {demands} | {names} |"
        )
        .unwrap();
    }
    table
}

/// A way in which a file may leave the sizes of its inputs open.
type Opened = fn(&mut Dimension, usize);

const OPENED: [(&str, Opened); 4] = [
    ("as it is", |_, _| ()),
    ("unset", |dim, _| dim.value = None),
    ("negative", |dim, _| dim.value = Some(Value::DimValue(-1))),
    ("a number for a name", |dim, axis| {
        dim.value = Some(Value::DimParam(["64", "7", "(1+2)*3", "N"][axis % 4].into()));
    }),
];

fn opened(proto: &ModelProto, how: Opened) -> ModelProto {
    let mut proto = proto.clone();
    for input in &mut proto.graph.as_mut().unwrap().input {
        let value = input.r#type.as_mut().and_then(|declared| declared.value.as_mut());
        if let Some(type_proto::Value::TensorType(tensor)) = value {
            let dims = tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim);
            dims.enumerate().for_each(|(axis, dim)| how(dim, axis));
        }
    }
    proto
}

/// Rules, engine and readers together, on whole graphs whose inputs declare their sizes in these
/// ways. Where a rule and the engine disagree, no size is known.
#[test]
fn graphs_have_the_sizes_that_onnx_says() {
    let mut failures = Vec::new();
    let mut counts = [[0usize; 3]; OPENED.len()];
    let given = InputShapes::new();
    for case in cases() {
        for ((how, open), [tensors, of_known_rank, disagreements]) in OPENED.iter().zip(&mut counts)
        {
            let model = indexed(&opened(&case.proto, *open));
            let graphs = Graph::read_all(&model).unwrap();
            let constants = Constants::find_all(&graphs, false).unwrap();
            let sizes = Sizes::new(&graphs[0], &constants[0], &given);
            // What tract infers by itself.
            let (bytes, limits) = (dialect::model(&model).unwrap(), Limits::of_reading());
            let source = Source { bytes, constants: vec![], storage: Storage::default(), limits };
            let inferred = engine::infer(source, &given).unwrap_or_default().shapes;
            for (name, dims) in &case.truth.dims {
                let Some(id) = graphs[0].find(name) else { continue };
                let what = format!("{} {how} {name}", case.name);
                *tensors += 1;
                let (ruled, found) = (sizes.by_rules(id), sizes.known(id));
                *of_known_rank += usize::from(found.is_some());
                // Where ONNX and ONNX Runtime disagree, the engine may know better.
                let found = found.filter(|_| !dims.contains(&None));
                for said in ruled.iter().chain(&found) {
                    known(said, dims, &mut failures, &what);
                }
                let Some((ruled, inferred)) = ruled.zip(inferred.get(name)) else { continue };
                if agreed(&ruled, inferred).is_none() {
                    *disagreements += 1;
                    let is_ruled =
                        found.as_ref().is_none_or(|found| agreed(found, &ruled).is_some());
                    assert!(is_ruled, "{what}: {found:?} of {ruled:?} and {inferred:?}");
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}\n{} are wrong", failures.join("\n"), failures.len());
    let mut table = String::from(
        "Tensors whose rank is known, by rules, engine and readers, by how the inputs are declared.\n\n\
         | inputs | tensors | rank known | where a rule and the engine disagree |\n\
         | --- | --- | --- | --- |\n",
    );
    for ((how, _), [tensors, ranks, disagreements]) in OPENED.iter().zip(counts) {
        writeln!(table, "| {how} | {tensors} | {ranks} | {disagreements} |").unwrap();
    }
    expect_file![std::env::current_dir().unwrap().join("fixtures/shapes/graphs.md")]
        .assert_eq(&table);
}
