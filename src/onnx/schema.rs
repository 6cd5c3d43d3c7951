//! Field numbers of the ONNX messages, as in `proto/onnx.proto`: only those of fields that are
//! read without decoding the message, or written before it is complete.
//!
//! Knows numbers; neither bytes nor what a field means.

/// Field numbers of `ModelProto`.
pub mod model_field {
    /// `ir_version`.
    pub const IR_VERSION: u32 = 1;
    /// `graph`.
    pub const GRAPH: u32 = 7;
    /// `opset_import`.
    pub const OPSET_IMPORT: u32 = 8;
    /// `training_info`.
    pub const TRAINING_INFO: u32 = 20;
    /// `functions`.
    pub const FUNCTIONS: u32 = 25;
}

/// Field numbers of `TrainingInfoProto`.
pub mod training_field {
    /// `initialization`.
    pub const INITIALIZATION: u32 = 1;
    /// `algorithm`.
    pub const ALGORITHM: u32 = 2;
}

/// Field numbers of `GraphProto`.
pub mod graph_field {
    /// `node`.
    pub const NODE: u32 = 1;
    /// `initializer`.
    pub const INITIALIZER: u32 = 5;
    /// `input`.
    pub const INPUT: u32 = 11;
    /// `output`.
    pub const OUTPUT: u32 = 12;
    /// `value_info`.
    pub const VALUE_INFO: u32 = 13;
    /// `quantization_annotation`.
    pub const QUANTIZATION_ANNOTATION: u32 = 14;
    /// `sparse_initializer`.
    pub const SPARSE_INITIALIZER: u32 = 15;
}

/// Field numbers of `NodeProto`.
pub mod node_field {
    /// `input`.
    pub const INPUT: u32 = 1;
    /// `output`.
    pub const OUTPUT: u32 = 2;
    /// `name`.
    pub const NAME: u32 = 3;
    /// `attribute`.
    pub const ATTRIBUTE: u32 = 5;
    /// `domain`.
    pub const DOMAIN: u32 = 7;
}

/// Field numbers of `AttributeProto`.
pub mod attribute_field {
    /// `name`.
    pub const NAME: u32 = 1;
    /// `t`.
    pub const TENSOR: u32 = 5;
    /// `g`.
    pub const GRAPH: u32 = 6;
    /// `tensors`.
    pub const TENSORS: u32 = 10;
    /// `graphs`.
    pub const GRAPHS: u32 = 11;
    /// `sparse_tensor`.
    pub const SPARSE_TENSOR: u32 = 22;
    /// `sparse_tensors`.
    pub const SPARSE_TENSORS: u32 = 23;
}

/// Field numbers of `FunctionProto`.
pub mod function_field {
    /// `input`.
    pub const INPUT: u32 = 4;
    /// `node`.
    pub const NODE: u32 = 7;
    /// `attribute_proto`.
    pub const ATTRIBUTE_PROTO: u32 = 11;
}

/// Field numbers of `TensorProto`.
pub mod tensor_field {
    /// The fields of the content: name, type and dimensions, and all that hold values or say
    /// where they lie, that is, `dims`, `data_type`, `float_data`, `int32_data`, `string_data`,
    /// `int64_data`, `name`, `raw_data`, `double_data`, `uint64_data`, `external_data` and
    /// `data_location`.
    pub const CONTENT: [u32; 12] = [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14];
    /// `data_type`.
    pub const DATA_TYPE: u32 = 2;
    /// `name`.
    pub const NAME: u32 = 8;
    /// `raw_data`.
    pub const RAW_DATA: u32 = 9;
    /// `external_data`.
    pub const EXTERNAL_DATA: u32 = 13;
    /// `data_location`.
    pub const DATA_LOCATION: u32 = 14;
}

/// Field numbers of `SparseTensorProto`.
pub mod sparse_field {
    /// `values`.
    pub const VALUES: u32 = 1;
    /// `indices`.
    pub const INDICES: u32 = 2;
}

/// Field numbers of `ValueInfoProto`.
pub mod info_field {
    /// `name`.
    pub const NAME: u32 = 1;
}

/// Field numbers of `TensorAnnotation`.
pub mod annotation_field {
    /// `tensor_name`.
    pub const TENSOR_NAME: u32 = 1;
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::onnx::proto::{
        AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
        SparseTensorProto, StringStringEntryProto, TensorAnnotation, TensorProto,
        TrainingInfoProto, ValueInfoProto,
    };
    use crate::onnx::wire;

    /// Returns the number of the first field that is encoded.
    fn first(message: &impl Message) -> u32 {
        let bytes = message.encode_to_vec();
        wire::fields(&bytes, 0..bytes.len()).next().unwrap().unwrap().number
    }

    fn new<M: Message + Default>(set: impl FnOnce(&mut M)) -> u32 {
        let mut message = M::default();
        set(&mut message);
        first(&message)
    }

    /// A tensor that has all fields of its content, and no others, has the fields of `CONTENT`.
    #[test]
    fn the_content_of_a_tensor_is_in_its_fields() {
        let content = TensorProto {
            dims: vec![1],
            data_type: Some(1),
            float_data: vec![1.0],
            int32_data: vec![1],
            string_data: vec![vec![1].into()],
            int64_data: vec![1],
            name: Some("x".to_owned()),
            raw_data: Some(vec![1].into()),
            double_data: vec![1.0],
            uint64_data: vec![1],
            external_data: vec![StringStringEntryProto::default()],
            data_location: Some(1),
            ..TensorProto::default()
        };
        let bytes = content.encode_to_vec();
        let mut numbers: Vec<u32> =
            wire::fields(&bytes, 0..bytes.len()).map(|field| field.unwrap().number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, tensor_field::CONTENT);
    }

    #[test]
    fn numbers_are_those_of_the_generated_messages() {
        let name = || Some("x".to_owned());
        let tensor = TensorProto::default;
        let sparse = SparseTensorProto::default;
        let info = ValueInfoProto::default;
        for (number, found) in [
            (model_field::IR_VERSION, new(|m: &mut ModelProto| m.ir_version = Some(8))),
            (model_field::GRAPH, new(|m: &mut ModelProto| m.graph = Some(GraphProto::default()))),
            (
                model_field::OPSET_IMPORT,
                new(|m: &mut ModelProto| m.opset_import = vec![OperatorSetIdProto::default()]),
            ),
            (
                model_field::TRAINING_INFO,
                new(|m: &mut ModelProto| m.training_info = vec![TrainingInfoProto::default()]),
            ),
            (
                training_field::INITIALIZATION,
                new(|t: &mut TrainingInfoProto| t.initialization = Some(GraphProto::default())),
            ),
            (
                training_field::ALGORITHM,
                new(|t: &mut TrainingInfoProto| t.algorithm = Some(GraphProto::default())),
            ),
            (
                model_field::FUNCTIONS,
                new(|m: &mut ModelProto| m.functions = vec![FunctionProto::default()]),
            ),
            (graph_field::NODE, new(|g: &mut GraphProto| g.node = vec![NodeProto::default()])),
            (graph_field::INITIALIZER, new(|g: &mut GraphProto| g.initializer = vec![tensor()])),
            (graph_field::INPUT, new(|g: &mut GraphProto| g.input = vec![info()])),
            (graph_field::OUTPUT, new(|g: &mut GraphProto| g.output = vec![info()])),
            (graph_field::VALUE_INFO, new(|g: &mut GraphProto| g.value_info = vec![info()])),
            (
                graph_field::QUANTIZATION_ANNOTATION,
                new(|g: &mut GraphProto| {
                    g.quantization_annotation = vec![TensorAnnotation::default()];
                }),
            ),
            (
                graph_field::SPARSE_INITIALIZER,
                new(|g: &mut GraphProto| g.sparse_initializer = vec![sparse()]),
            ),
            (node_field::INPUT, new(|n: &mut NodeProto| n.input = vec![String::new()])),
            (node_field::OUTPUT, new(|n: &mut NodeProto| n.output = vec![String::new()])),
            (node_field::NAME, new(|n: &mut NodeProto| n.name = name())),
            (node_field::DOMAIN, new(|n: &mut NodeProto| n.domain = name())),
            (
                node_field::ATTRIBUTE,
                new(|n: &mut NodeProto| n.attribute = vec![AttributeProto::default()]),
            ),
            (attribute_field::NAME, new(|a: &mut AttributeProto| a.name = name())),
            (attribute_field::TENSOR, new(|a: &mut AttributeProto| a.t = Some(Box::new(tensor())))),
            (attribute_field::GRAPH, new(|a: &mut AttributeProto| a.g = Some(Box::default()))),
            (attribute_field::TENSORS, new(|a: &mut AttributeProto| a.tensors = vec![tensor()])),
            (
                attribute_field::GRAPHS,
                new(|a: &mut AttributeProto| a.graphs = vec![GraphProto::default()]),
            ),
            (
                attribute_field::SPARSE_TENSOR,
                new(|a: &mut AttributeProto| a.sparse_tensor = Some(sparse())),
            ),
            (
                attribute_field::SPARSE_TENSORS,
                new(|a: &mut AttributeProto| a.sparse_tensors = vec![sparse()]),
            ),
            (function_field::INPUT, new(|f: &mut FunctionProto| f.input = vec![String::new()])),
            (
                function_field::NODE,
                new(|f: &mut FunctionProto| f.node = vec![NodeProto::default()]),
            ),
            (
                function_field::ATTRIBUTE_PROTO,
                new(|f: &mut FunctionProto| f.attribute_proto = vec![AttributeProto::default()]),
            ),
            (tensor_field::DATA_TYPE, new(|t: &mut TensorProto| t.data_type = Some(1))),
            (tensor_field::NAME, new(|t: &mut TensorProto| t.name = name())),
            (tensor_field::RAW_DATA, new(|t: &mut TensorProto| t.raw_data = Some(vec![0].into()))),
            (
                tensor_field::EXTERNAL_DATA,
                new(|t: &mut TensorProto| {
                    t.external_data = vec![StringStringEntryProto::default()];
                }),
            ),
            (tensor_field::DATA_LOCATION, new(|t: &mut TensorProto| t.data_location = Some(1))),
            (
                sparse_field::VALUES,
                new(|s: &mut SparseTensorProto| s.values = Some(tensor().into())),
            ),
            (
                sparse_field::INDICES,
                new(|s: &mut SparseTensorProto| s.indices = Some(tensor().into())),
            ),
            (info_field::NAME, new(|i: &mut ValueInfoProto| i.name = name())),
            (annotation_field::TENSOR_NAME, new(|a: &mut TensorAnnotation| a.tensor_name = name())),
        ] {
            assert_eq!(number, found);
        }
    }
}
