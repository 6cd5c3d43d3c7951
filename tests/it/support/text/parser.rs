//! Reads models, graphs, functions, nodes and attributes.

use acb_fuse::onnx::proto::attribute_proto::AttributeType;
use acb_fuse::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, ValueInfoProto,
};

use super::literals::{TensorType, tensor_type};
use super::scanner::{Scanner, Word};

type Found<T> = Result<T, String>;

pub fn model(scanner: &mut Scanner) -> Found<ModelProto> {
    let mut model = ModelProto::default();
    if scanner.sees("<") {
        scanner.list("<", ">", |scanner| model_entry(scanner, &mut model))?;
    }
    model.graph = Some(graph(scanner)?);
    while !scanner.ends() {
        model.functions.push(function(scanner)?);
    }
    Ok(model)
}

fn model_entry(scanner: &mut Scanner, model: &mut ModelProto) -> Found<()> {
    let key = scanner.name()?;
    scanner.expect(":")?;
    match key.as_str() {
        "ir_version" => model.ir_version = Some(scanner.integer()?),
        "model_version" => model.model_version = Some(scanner.integer()?),
        "producer_name" => model.producer_name = Some(scanner.string()?),
        "producer_version" => model.producer_version = Some(scanner.string()?),
        "domain" => model.domain = Some(scanner.string()?),
        "doc_string" => model.doc_string = Some(scanner.string()?),
        "opset_import" => model.opset_import = opsets(scanner)?,
        "metadata_props" => {
            model.metadata_props = scanner.list("[", "]", |scanner| {
                let key = Some(scanner.string()?);
                scanner.expect(":")?;
                Ok(StringStringEntryProto { key, value: Some(scanner.string()?) })
            })?;
        }
        other => return Err(format!("a model has no `{other}`")),
    }
    Ok(())
}

fn opsets(scanner: &mut Scanner) -> Found<Vec<OperatorSetIdProto>> {
    scanner.list("[", "]", |scanner| {
        let domain = Some(scanner.string()?);
        scanner.expect(":")?;
        Ok(OperatorSetIdProto { domain, version: Some(scanner.integer()?) })
    })
}

/// A declaration: a name, its type, and its values if they are written down.
struct Declared {
    name: String,
    of: Option<TensorType>,
    values: Option<TensorProto>,
}

impl Declared {
    fn read(scanner: &mut Scanner) -> Found<Self> {
        let of = tensor_type(scanner)?;
        let name = scanner.name()?;
        let values = match (&of, scanner.takes("=")) {
            (Some(of), true) => Some(of.literal(&name, scanner)?),
            (None, true) => return Err(format!("`{name}` has values, but no type")),
            (_, false) => None,
        };
        Ok(Declared { name, of, values })
    }

    fn info(&self) -> ValueInfoProto {
        let r#type = self.of.as_ref().map(TensorType::proto);
        ValueInfoProto { name: Some(self.name.clone()), r#type, ..ValueInfoProto::default() }
    }
}

fn declared(scanner: &mut Scanner, open: &str, close: &str) -> Found<Vec<Declared>> {
    scanner.list(open, close, Declared::read)
}

fn graph(scanner: &mut Scanner) -> Found<GraphProto> {
    let name = Some(scanner.name()?);
    let inputs = declared(scanner, "(", ")")?;
    scanner.expect("=>")?;
    let outputs = declared(scanner, "(", ")")?;
    let further = if scanner.sees("<") { declared(scanner, "<", ">")? } else { vec![] };
    let node = nodes(scanner)?;
    let infos = |list: &[Declared]| list.iter().map(Declared::info).collect::<Vec<_>>();
    let mut graph = GraphProto {
        name,
        input: infos(&inputs),
        output: infos(&outputs),
        node,
        ..GraphProto::default()
    };
    graph.initializer.extend(inputs.into_iter().filter_map(|input| input.values));
    for declared in further {
        let made = graph.node.iter().flat_map(|node| &node.output);
        let is_made = made.clone().any(|name| *name == declared.name);
        match (&declared.values, &declared.of) {
            (Some(values), _) => graph.initializer.push(values.clone()),
            (None, Some(of)) if !is_made => graph.initializer.push(of.weight(&declared.name)?),
            _ => graph.value_info.push(declared.info()),
        }
    }
    Ok(graph)
}

fn function(scanner: &mut Scanner) -> Found<FunctionProto> {
    let mut function = FunctionProto::default();
    scanner.list("<", ">", |scanner| {
        let key = scanner.name()?;
        scanner.expect(":")?;
        match key.as_str() {
            "domain" => function.domain = Some(scanner.string()?),
            "doc_string" => function.doc_string = Some(scanner.string()?),
            "opset_import" => function.opset_import = opsets(scanner)?,
            other => return Err(format!("a function has no `{other}`")),
        }
        Ok(())
    })?;
    function.name = Some(scanner.name()?);
    if scanner.sees("<") {
        scanner.list("<", ">", |scanner| {
            let name = scanner.name()?;
            if scanner.sees(":") || scanner.sees("=") {
                function.attribute_proto.push(value_of(name, scanner)?)
            } else {
                function.attribute.push(name)
            }
            Ok(())
        })?;
    }
    function.input = scanner.list("(", ")", Scanner::name)?;
    scanner.expect("=>")?;
    function.output = scanner.list("(", ")", Scanner::name)?;
    function.node = nodes(scanner)?;
    Ok(function)
}

fn nodes(scanner: &mut Scanner) -> Found<Vec<NodeProto>> {
    let mut nodes = Vec::new();
    scanner.expect("{")?;
    while !scanner.takes("}") {
        nodes.push(node(scanner)?);
    }
    Ok(nodes)
}

fn node(scanner: &mut Scanner) -> Found<NodeProto> {
    let mut node = NodeProto::default();
    if scanner.takes("[") {
        node.name = Some(scanner.name()?);
        scanner.expect("]")?;
    }
    node.output.push(scanner.name()?);
    while scanner.takes(",") {
        node.output.push(scanner.name()?);
    }
    scanner.expect("=")?;
    let (domain, operator) = scanner.operator()?;
    (node.domain, node.op_type) = (Some(domain), Some(operator));
    let mut attributes = attributes(scanner)?;
    node.input = scanner.list("(", ")", Scanner::name)?;
    attributes.extend(self::attributes(scanner)?);
    node.attribute = attributes;
    Ok(node)
}

fn attributes(scanner: &mut Scanner) -> Found<Vec<AttributeProto>> {
    if !scanner.sees("<") {
        return Ok(vec![]);
    }
    scanner.list("<", ">", |scanner| {
        let name = scanner.name()?;
        value_of(name, scanner)
    })
}

/// Reads the attribute `name`: its type, if that is given, and its value come next.
fn value_of(name: String, scanner: &mut Scanner) -> Found<AttributeProto> {
    let said = scanner.takes(":").then(|| scanner.name()).transpose()?;
    let said = said.map(|said| {
        let found = AttributeType::from_str_name(&said.to_uppercase());
        found.ok_or_else(|| format!("attributes have no type `{said}`"))
    });
    let said = said.transpose()?;
    scanner.expect("=")?;
    let mut attribute = AttributeProto { name: Some(name), ..AttributeProto::default() };
    let found = if scanner.sees("[") {
        several(scanner, &mut attribute, said)?
    } else {
        single(scanner, &mut attribute)?
    };
    let kind = said.or(found).ok_or("an attribute without a type")?;
    attribute.r#type = Some(kind.into());
    Ok(attribute)
}

fn single(scanner: &mut Scanner, to: &mut AttributeProto) -> Found<Option<AttributeType>> {
    if scanner.takes("@") {
        to.ref_attr_name = Some(scanner.name()?);
        return Ok(None);
    }
    if let Some(of) = tensor_type(scanner)? {
        let name = if scanner.sees("{") { String::new() } else { scanner.name()? };
        scanner.takes("=");
        let is_literal = scanner.sees("{");
        let tensor = if is_literal { of.literal(&name, scanner)? } else { of.weight(&name)? };
        to.t = Some(Box::new(tensor));
        return Ok(Some(AttributeType::Tensor));
    }
    let word = scanner.peeked();
    if word.starts_with(|c: char| c.is_alphabetic() || c == '_') && !["inf", "nan"].contains(&word)
    {
        to.g = Some(Box::new(graph(scanner)?));
        return Ok(Some(AttributeType::Graph));
    }
    Ok(Some(match scanner.literal()? {
        Word::Int(value) => {
            to.i = Some(value);
            AttributeType::Int
        }
        Word::Float(value) => {
            to.f = Some(value as f32);
            AttributeType::Float
        }
        Word::Text(value) => {
            to.s = Some(value.into_bytes().into());
            AttributeType::String
        }
    }))
}

/// Reads a list, which is one of floats if one of its numbers is a float.
fn several(
    scanner: &mut Scanner,
    to: &mut AttributeProto,
    said: Option<AttributeType>,
) -> Found<Option<AttributeType>> {
    let words = scanner.list("[", "]", Scanner::literal)?;
    let has_float = words.iter().any(|word| matches!(word, Word::Float(_)));
    let of_floats = has_float || said == Some(AttributeType::Floats);
    for word in &words {
        match word {
            Word::Int(value) if of_floats => to.floats.push(*value as f32),
            Word::Int(value) => to.ints.push(*value),
            Word::Float(value) => to.floats.push(*value as f32),
            Word::Text(value) => to.strings.push(value.clone().into_bytes().into()),
        }
    }
    Ok(match words.first() {
        None => None,
        Some(Word::Text(_)) => Some(AttributeType::Strings),
        Some(_) if of_floats => Some(AttributeType::Floats),
        Some(_) => Some(AttributeType::Ints),
    })
}
