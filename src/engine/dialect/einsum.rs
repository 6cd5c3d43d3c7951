//! Einsums that sum nothing, as products of tensors that broadcast.

use crate::onnx::equation::Equation;
use crate::onnx::proto::NodeProto;
use crate::onnx::tensor;
use crate::onnx::write;

/// Rewrites an Einsum of several operands, all of whose letters occur in the result, as their
/// product. Each operand gets its axes in the order of the result's, and axes of size 1 where it
/// has none. In tract a letter stands for one size; in ONNX, operands may also have size 1
/// there. Every other Einsum is returned as it is.
pub fn outer_product(einsum: NodeProto, opset: i64) -> Vec<NodeProto> {
    let attribute = einsum.attribute.iter().find(|attribute| attribute.name() == "equation");
    let equation = attribute.and_then(|equation| Equation::of(equation.s()));
    let Some(equation) = equation.filter(|equation| sums_nothing(equation, &einsum)) else {
        return vec![einsum];
    };
    let output = einsum.output.first().map_or("", String::as_str);
    let mut nodes = Vec::new();
    let mut product: Option<String> = None;
    let last = equation.operands.len().saturating_sub(1);
    for (index, (axes, input)) in equation.operands.iter().zip(&einsum.input).enumerate() {
        let called = |what: &str| format!("{output}.{what}.{index}");
        let operand = along(&mut nodes, (axes, input), &equation.result, opset, &called);
        product = Some(match product {
            None => operand,
            Some(before) => {
                let name = if index == last { output.to_owned() } else { called("product") };
                nodes.push(write::node("Mul", "", &[&before, &operand], &name, Vec::new()));
                name
            }
        });
    }
    nodes
}

fn sums_nothing(equation: &Equation, einsum: &NodeProto) -> bool {
    let is_told_once = |axes: &Vec<char>| {
        axes.iter()
            .enumerate()
            .all(|(at, axis)| !axes.iter().skip(at.saturating_add(1)).any(|a| a == axis))
    };
    let mut letters = equation.operands.iter().flatten();
    let is_several = equation.operands.len() > 1;
    is_several
        && equation.operands.len() == einsum.input.len()
        && letters.all(|letter| equation.result.contains(letter))
        && equation.result.iter().all(|l| equation.operands.iter().flatten().any(|o| o == l))
        && equation.operands.iter().chain([&equation.result]).all(is_told_once)
}

/// Appends the nodes that give the operand with `axes` the axes of `result`; returns the name of
/// what they make.
fn along(
    nodes: &mut Vec<NodeProto>,
    (axes, input): (&[char], &str),
    result: &[char],
    opset: i64,
    called: &dyn Fn(&str) -> String,
) -> String {
    let place = |letter: &char| axes.iter().position(|axis| axis == letter).map(|at| at as i64);
    let perm: Vec<i64> = result.iter().filter_map(place).collect();
    let missing = result.iter().enumerate().filter(|(_, letter)| place(letter).is_none());
    let missing: Vec<i64> = missing.map(|(at, _)| at as i64).collect();
    let mut operand = input.to_owned();
    if !perm.is_sorted() {
        let turned = called("turned");
        let perm = vec![write::ints("perm", perm)];
        nodes.push(write::node("Transpose", "", &[&operand], &turned, perm));
        operand = turned;
    }
    if !missing.is_empty() {
        let spread = called("spread");
        // The axes of Unsqueeze are an input since operator set 13.
        if opset < 13 {
            let axes = vec![write::ints("axes", missing)];
            nodes.push(write::node("Unsqueeze", "", &[&operand], &spread, axes));
        } else {
            let axes = called("axes");
            nodes.push(write::constant(tensor::from_integers(&axes, &missing)));
            nodes.push(write::node("Unsqueeze", "", &[&operand, &axes], &spread, Vec::new()));
        }
        operand = spread;
    }
    operand
}
