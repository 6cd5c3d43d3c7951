//! Parses a [`Source`] into tract's form of the model, whose sizes and types are not inferred
//! yet.
//!
//! Decides what tract reads: neutral names, only operators that it may take for its own,
//! constants and given tensors without a copy, and side files at the places that [`Storage`]
//! allows.
//!
//! Knows what tract reads; does not know whether the model will be run or analysed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use prost::Message;
use tract_onnx::Onnx;
use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::ops::konst::Const;

use crate::engine::dialect::{ranks, spare};
use crate::engine::names::NeutralNames;
use crate::engine::norms;
use crate::engine::source::Source;
use crate::engine::tensors::{EngineTensor, tensor_of};
use crate::onnx::storage::Storage;

/// Parses a model under neutral names and passes it to `go_on`. Errors name tensors as the file
/// does.
pub fn parsed<T>(
    source: &Source,
    given: &[(String, EngineTensor)],
    go_on: impl FnOnce(InferenceModel, &NeutralNames) -> TractResult<T>,
) -> TractResult<(T, NeutralNames)> {
    let mut names = NeutralNames::default();
    let model = parse(source, given, &mut names);
    match model.and_then(|model| go_on(model, &names)) {
        Ok(value) => Ok((value, names)),
        Err(error) => Err(names.in_words_of_the_file(&error)),
    }
}

/// Returns the parsed model, with the `given` tensors as further inputs, after its own.
fn parse(
    source: &Source,
    given: &[(String, EngineTensor)],
    names: &mut NeutralNames,
) -> TractResult<InferenceModel> {
    static ONNX: LazyLock<Onnx> =
        LazyLock::new(|| norms::guarded(tract_onnx::onnx()).with_ignore_value_info(true));
    let mut proto = pb::ModelProto::decode(&source.bytes[..])?;
    if let Some(graph) = &mut proto.graph {
        ranks::check(graph, &source.constants)?;
        names.neutralize(graph);
        spare::unknown_operators(graph);
    }
    let mut root = None;
    let mut settled = Vec::new();
    if let Some(graph) = &mut proto.graph {
        for constant in &source.constants {
            let name = names.neutral(constant.name());
            match tensor_of(constant)? {
                None => {
                    let stored = constant.header.encode_to_vec();
                    let stored = pb::TensorProto::decode(&stored[..])?;
                    graph.initializer.push(pb::TensorProto { name, ..stored });
                }
                Some(tensor) => {
                    graph.input.push(declared(&name, tensor.shape()));
                    settled.push((name, tensor.into_arc_tensor()));
                }
            }
        }
        for (name, input) in given {
            graph.input.push(declared(&names.neutral(name.as_str()), input.tensor.shape()));
        }
        locate(graph, &source.storage, &mut root)?;
    }
    let mut parsed = ONNX.parse(&proto, root.as_deref().and_then(Path::to_str))?;
    if let [name, ..] = parsed.unresolved_inputs.as_slice() {
        return Err(TractError::msg(format!("nothing defines `{name}`")));
    }
    let (model, outlets) = (&mut parsed.model, &parsed.outlets_by_name);
    let outlet = |name: &str| {
        outlets.get(name).copied().ok_or_else(|| TractError::msg(format!("`{name}` is lost")))
    };
    for (name, input) in given {
        let name = names.neutral(name.as_str());
        let tensor = &input.tensor;
        if input.is_constant {
            settled.push((name, Arc::clone(tensor)));
        } else {
            let fact = InferenceFact::dt_shape(tensor.datum_type(), tensor.shape());
            model.set_outlet_fact(outlet(&name)?, fact)?;
        }
    }
    settle(model, settled.into_iter().map(|(name, value)| Ok((outlet(&name)?, value))))?;
    Ok(parsed.model)
}

/// Returns the declaration of a graph input; its type, float32, is a placeholder.
fn declared(name: &str, shape: &[usize]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::Dimension;
    use pb::tensor_shape_proto::dimension::Value;
    let dim = |&size: &usize| Dimension {
        value: i64::try_from(size).ok().map(Value::DimValue),
        ..Dimension::default()
    };
    let shape = pb::TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let elem_type = pb::tensor_proto::DataType::Float.into();
    let tensor = pb::type_proto::Tensor { elem_type, shape: Some(shape) };
    let value = Some(pb::type_proto::Value::TensorType(tensor));
    let r#type = Some(pb::TypeProto { value, ..pb::TypeProto::default() });
    pb::ValueInfoProto { name: name.to_owned(), r#type, ..pb::ValueInfoProto::default() }
}

/// Turns inputs into constants with these values. tract compares each constant that it reads
/// with all constants it has read before; as inputs they avoid that comparison, and a copy.
fn settle(
    model: &mut InferenceModel,
    values: impl Iterator<Item = TractResult<(OutletId, Arc<Tensor>)>>,
) -> TractResult<()> {
    let mut settled = HashSet::new();
    for value in values {
        let (outlet, value) = value?;
        let fact = TypedFact::try_from(Arc::clone(&value))?;
        model.set_outlet_fact(outlet, fact.into())?;
        model.node_mut(outlet.node).op = Const::new(value)?.into();
        settled.insert(outlet);
    }
    model.inputs.retain(|input| !settled.contains(input));
    Ok(())
}

/// Sets the locations of external tensors to where our own reading finds them, relative to the
/// `root` of the file system: which files may be read is decided in [`Storage`] alone.
fn locate(
    graph: &mut pb::GraphProto,
    storage: &Storage,
    root: &mut Option<PathBuf>,
) -> TractResult<()> {
    const EXTERNAL: i32 = 1;
    let inside = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    let (mut tensors, mut bodies) = (Vec::new(), Vec::new());
    for attribute in inside {
        tensors.extend(attribute.t.iter_mut().chain(&mut attribute.tensors));
        bodies.extend(attribute.g.iter_mut().chain(&mut attribute.graphs));
    }
    tensors.extend(&mut graph.initializer);
    for tensor in tensors.into_iter().filter(|tensor| tensor.data_location == Some(EXTERNAL)) {
        for entry in tensor.external_data.iter_mut().filter(|entry| entry.key == "location") {
            let path = storage.resolve(&entry.value)?;
            let top = path.ancestors().last().unwrap_or(&path);
            let place = path.strip_prefix(top)?.to_str();
            let place = place.ok_or_else(|| TractError::msg("a path is not UTF-8"))?;
            entry.value = place.to_owned();
            *root = Some(top.to_owned());
        }
    }
    bodies.into_iter().try_for_each(|body| locate(body, storage, root))
}
