//! Nodes as tract takes them: what it refuses or panics on, written in other words.

use crate::onnx::proto::{AttributeProto, NodeProto, attribute_proto::AttributeType};
use crate::onnx::tensor;

/// `node` without empty names at the end of its inputs (tract panics), negative pads (it
/// panics) and circular padding (it has none). `integers` looks constants up.
pub fn as_tract_takes_it(
    mut node: NodeProto,
    opset: i64,
    integers: &dyn Fn(&str) -> Option<Vec<i64>>,
) -> Vec<NodeProto> {
    while node.input.last().is_some_and(String::is_empty) {
        node.input.pop();
    }
    if node.op_type() != "Pad" {
        return vec![node];
    }
    let list = |index: usize, name: &str| {
        let attribute = node.attribute.iter().find(|attribute| attribute.name() == name);
        let given = || integers(node.input.get(index)?);
        attribute.map(|attribute| attribute.ints.clone()).or_else(given)
    };
    let Some(pads) = list(1, "pads") else { return vec![node] };
    let axes = list(3, "axes").unwrap_or_else(|| (0..pads.len() as i64 / 2).collect());
    if node.attribute.iter().any(|attribute| attribute.s() == b"wrap") {
        wrap(&node, opset, &axes, &pads)
    } else if pads.iter().any(|&pad| pad < 0) {
        pad_then_crop(&node, opset, &axes, &pads)
    } else {
        vec![node]
    }
}

/// `Pad` with negative pads as the positive ones, then a `Slice`.
fn pad_then_crop(node: &NodeProto, opset: i64, axes: &[i64], pads: &[i64]) -> Vec<NodeProto> {
    let output = node.output.first().cloned().unwrap_or_default();
    let (begins, ends) = pads.split_at(pads.len() / 2);
    let padded = format!("{output}.padded");
    let positive: Vec<i64> = pads.iter().map(|&pad| pad.max(0)).collect();
    let mut pad = NodeProto { output: vec![padded.clone()], ..node.clone() };
    let mut nodes = Vec::new();
    match pad.attribute.iter_mut().find(|attribute| attribute.name() == "pads") {
        Some(attribute) => attribute.ints = positive,
        None => {
            let name = format!("{output}.pads");
            pad.input.iter_mut().skip(1).take(1).for_each(|input| input.clone_from(&name));
            nodes.push(constant(name, positive));
        }
    }
    let cuts = axes.iter().zip(begins.iter().zip(ends)).map(|(&axis, (&begin, &end))| {
        (axis, (-begin).max(0), if end < 0 { end } else { i64::MAX })
    });
    nodes.push(pad);
    nodes.extend(slice(opset, &padded, &output, &cuts.collect::<Vec<_>>()));
    nodes
}

/// `Pad` with the mode `wrap`, which tract does not have, as `Slice` and `Concat`.
fn wrap(node: &NodeProto, opset: i64, axes: &[i64], pads: &[i64]) -> Vec<NodeProto> {
    let output = node.output.first().cloned().unwrap_or_default();
    let mut input = node.input.first().cloned().unwrap_or_default();
    let (begins, ends) = pads.split_at(pads.len() / 2);
    let mut nodes = Vec::new();
    let pads = axes.iter().zip(begins.iter().zip(ends)).filter(|(_, pads)| *pads != (&0, &0));
    for (&axis, (&begin, &end)) in pads {
        let (last, first) = (format!("{output}.{axis}.last"), format!("{output}.{axis}.first"));
        let padded = format!("{output}.{axis}");
        nodes.extend(slice(
            opset,
            &input,
            &last,
            &[(axis, if begin > 0 { -begin } else { i64::MAX }, i64::MAX)],
        ));
        nodes.extend(slice(opset, &input, &first, &[(axis, 0, end)]));
        nodes.push(NodeProto {
            op_type: Some("Concat".into()),
            input: vec![last, input, first],
            output: vec![padded.clone()],
            attribute: vec![AttributeProto {
                name: Some("axis".into()),
                r#type: Some(AttributeType::Int.into()),
                i: Some(axis),
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        });
        input = padded;
    }
    nodes.push(NodeProto {
        op_type: Some("Identity".into()),
        input: vec![input],
        output: vec![output],
        ..NodeProto::default()
    });
    nodes
}

/// `Slice` of `input`, by (axis, start, end).
fn slice(opset: i64, input: &str, output: &str, cuts: &[(i64, i64, i64)]) -> Vec<NodeProto> {
    let lists = [
        ("starts", cuts.iter().map(|cut| cut.1).collect::<Vec<_>>()),
        ("ends", cuts.iter().map(|cut| cut.2).collect()),
        ("axes", cuts.iter().map(|cut| cut.0).collect()),
    ];
    let mut slice = NodeProto {
        op_type: Some("Slice".into()),
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let mut nodes = Vec::new();
    for (list, values) in lists {
        // Attributes before opset 10, inputs since.
        if opset < 10 {
            slice.attribute.push(AttributeProto {
                name: Some(list.into()),
                r#type: Some(AttributeType::Ints.into()),
                ints: values,
                ..AttributeProto::default()
            });
        } else {
            let name = format!("{output}.{list}");
            slice.input.push(name.clone());
            nodes.push(constant(name, values));
        }
    }
    nodes.push(slice);
    nodes
}

fn constant(name: String, values: Vec<i64>) -> NodeProto {
    let value = AttributeProto {
        name: Some("value".into()),
        r#type: Some(AttributeType::Tensor.into()),
        t: Some(tensor::from_integers(&name, &values)),
        ..AttributeProto::default()
    };
    NodeProto {
        op_type: Some("Constant".into()),
        output: vec![name],
        attribute: vec![value],
        ..NodeProto::default()
    }
}
