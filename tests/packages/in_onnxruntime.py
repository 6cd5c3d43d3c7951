"""Runs an old and a new model in ONNX Runtime, optimisations off, and prints their largest differences as JSON.

    python tests/packages/in_onnxruntime.py OLD.onnx NEW.onnx [--sizes-of-the-tool JSON] [--compared NAME...]

Both run on seeded inputs at two assignments of open sizes at which ONNX Runtime runs the old model; the tool's sizes
are taken only if there are no others. Inputs are standard normal noise, and others where the outputs on it do not vary.
Where a Sigmoid or Softmax closes the model, its input is compared instead of its output: 1e-7 next to 1 is rounding.

At the tool's own sizes, which are a list of {input: shape}, only the old model runs, to see whether the tensors that
the tool compared, which are the outputs if no others are named, vary there at all. Where a Sigmoid or Softmax closes
the model, its input takes their place here, too. Knows nothing of blocks; needs numpy, onnx and onnxruntime.
"""

import argparse
import itertools
import json
import sys
import time
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

# Variation relative to the largest value up to which an output counts as constant: a comparison at this tolerance would
# not notice it.
SEEN = 1e-4
KINDS = ("noise", "0..1", "0..255")
SEEDS = (0, 1)
ASSIGNMENTS = 2
MOST_ELEMENTS = 1 << 24
# Operators that change no values.
PASSES = "Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten"

BATCHES = 2, 1
# Heights and widths of detectors, classifiers and text recognizers; lengths of sequences and sounds.
SPACES = (96, 160), (160, 320), (48, 320), (224, 224), (320, 320), (640, 640), (32, 100), (80, 160), (512, 512)
LENGTHS = 96, 160, 320, 512, 256, 100, 16, 1000, 16000


@dataclass
class Input:
    """A graph input that has to be fed; its dimensions are numbers, or names if they are open."""
    name: str
    element_type: int
    dims: list


def inputs_of(model):
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [Input(info.name, info.type.tensor_type.elem_type,
                  [dim_of(info.name, axis, dim) for axis, dim in enumerate(info.type.tensor_type.shape.dim)])
            for info in model.graph.input if info.name not in initializers]


def dim_of(name, axis, dim):
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return dim.dim_value
    return dim.dim_param or f"{name} {axis}"


# --- sizes --------------------------------------------------------------------

def assignments(inputs):
    """Returns assignments of shapes to all inputs, likely ones first; dimensions of the same name get the same size."""
    seen = []
    for (space, length), batch in itertools.product(zip(SPACES, LENGTHS), BATCHES):
        sizes, shapes = {}, {}
        for entry in inputs:
            spaces = itertools.chain(space if is_picture(entry) else [length], itertools.repeat(length))
            shapes[entry.name] = [
                dim if isinstance(dim, int)
                else sizes.setdefault(dim, batch if is_batch(entry, axis) else next(spaces))
                for axis, dim in enumerate(entry.dims)]
        if shapes not in seen:
            seen.append(shapes)
    return seen


def is_picture(entry):
    return len(entry.dims) == 4 and sum(not isinstance(dim, int) for dim in entry.dims[1:]) == 2


def is_batch(entry, axis):
    """Returns whether an axis is the batch: the first one, or the second of a recurrent state.

    Such a state has the axes layers, batch and channels, of which the first and the last are declared.
    """
    layers_and_channels = len(entry.dims) == 3 and all(isinstance(entry.dims[axis], int) for axis in (0, 2))
    return axis == 0 or (axis == 1 and layers_and_channels)


def elements(shapes):
    return sum(int(np.prod(shape, dtype=object)) for shape in shapes.values())


# --- runs ---------------------------------------------------------------------

def feeds(inputs, shapes, kind, seed):
    random = np.random.default_rng(seed)
    return {entry.name: values(random, entry.element_type, shapes[entry.name], kind) for entry in inputs}


def values(random, element_type, shape, kind):
    dtype = helper.tensor_dtype_to_np_dtype(element_type)
    if element_type not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16):
        return random.integers(0, 2, shape).astype(dtype)
    match kind:
        case "noise":
            return np.asarray(random.standard_normal(shape)).astype(dtype)
        case "0..1":
            return np.asarray(random.random(shape)).astype(dtype)
        case "0..255":
            return np.asarray(random.integers(0, 256, shape)).astype(dtype)


def closing(model):
    """Returns, by output, the input of the Sigmoid or Softmax that closes the model there, if there is one."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for output in model.graph.output:
        node = made_by.get(output.name)
        while node is not None and node.op_type in PASSES:
            node = made_by.get(node.input[0])
        if node is not None and node.op_type in ("Sigmoid", "Softmax"):
            found[output.name] = node.input[0]
    return found


def with_outputs(path, names):
    """Returns the file's model, serialized, with these tensors as its only outputs."""
    model = onnx.load(path)
    declared = {output.name: output for output in model.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(declared.get(name) or onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    return model.SerializeToString()


def tensors_of(model):
    return {name for node in model.graph.node for name in node.output} | {entry.name for entry in model.graph.input}


def session(path, optimised=False):
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def outputs(of_session, inputs):
    return [np.asarray(output).astype(np.float64) for output in of_session.run(None, inputs)]


def largest(array):
    return float(np.max(np.abs(array), initial=0.0))


def difference(expected, found):
    """Returns the largest difference relative to the largest value.

    Returns None if the shapes differ, or an element is finite on one side only.
    """
    if expected.shape != found.shape or not np.array_equal(np.isfinite(expected), np.isfinite(found)):
        return None
    finite = np.isfinite(expected)
    apart = largest(expected[finite] - found[finite])
    return apart / largest(expected[finite]) if apart else 0.0


def spread(of_seeds, least=0.0):
    """Returns how far the values of one output are apart: over all elements and inputs, and between the inputs alone.

    Both are relative to its largest value, but at least to `least`: what a Sigmoid would yield is relative to 1.
    """
    scale = max(least, *map(largest, of_seeds))
    if not scale or not np.isfinite(scale):
        return 0.0, 0.0
    low, high = min(array.min(initial=np.inf) for array in of_seeds), max(array.max(initial=-np.inf) for array in of_seeds)
    first, second = of_seeds
    between = largest(first - second) if first.shape == second.shape else scale
    return max(high - low, between) / scale, between / scale


# --- what is said -------------------------------------------------------------

def variation(old, inputs, shapes, leasts):
    """Returns, by kind of input, how far the values of each output are apart (over all, between inputs)."""
    found = {}
    for kind in KINDS:
        of_seeds = [outputs(old, feeds(inputs, shapes, kind, seed)) for seed in SEEDS]
        found[kind] = [spread(of_one, least) for of_one, least in zip(zip(*of_seeds), leasts)]
    return found


def at_sizes_of_the_tool(old, inputs, shapes, leasts):
    try:
        return {"sizes": shapes, "variation": variation(old, inputs, shapes, leasts)}
    except Exception as problem:
        return {"sizes": shapes, "problem": short(problem)}


def compare(sessions, inputs, shapes):
    """Returns the largest differences of the outputs at one assignment, between the old model and the new one.

    For comparison, it also returns those between the old model and itself with optimisations.
    """
    old, optimised, new = sessions
    apart, itself, compared = [], [], []
    for kind in KINDS:
        of_seeds = []
        for seed in SEEDS:
            fed = feeds(inputs, shapes, kind, seed)
            expected = outputs(old, fed)
            of_seeds.append(expected)
            apart.append([difference(*pair) for pair in zip(expected, outputs(new, fed))])
            itself.append([difference(*pair) for pair in zip(expected, outputs(optimised, fed))])
        compared.append(kind)
        if any(between > SEEN for _, between in map(spread, zip(*of_seeds))):
            break
    return {"sizes": shapes, "kinds": compared, "differences": worst(apart), "optimised": worst(itself)}


def worst(rows):
    """Returns the largest difference of each output; None where one of its differences is None."""
    return [None if None in column else max(column) for column in zip(*rows)]


def runs(sessions, inputs, of_the_tool):
    """Returns comparisons at the first assignments that the old model accepts, and, if there are none, why not."""
    found, problem = [], None
    candidates = [shapes for shapes in assignments(inputs) if elements(shapes) <= MOST_ELEMENTS]
    others = [shapes for shapes in candidates if shapes not in of_the_tool] or candidates
    for shapes in others:
        if len(found) == ASSIGNMENTS:
            break
        try:
            accepted = outputs(sessions[0], feeds(inputs, shapes, KINDS[0], SEEDS[0]))
        except Exception as refused:
            problem = short(refused)
            continue
        if not all(output.size for output in accepted):
            continue
        found.append(compare(sessions, inputs, shapes))
    return found, None if found else problem


def short(problem):
    return " ".join(str(problem).split())[:400]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--sizes-of-the-tool", type=json.loads, default=[])
    parser.add_argument("--compared", nargs="*", default=[])
    arguments = parser.parse_args()
    started = time.monotonic()
    old, new = (onnx.load(path, load_external_data=False) for path in (arguments.old, arguments.new))
    inputs, in_front = inputs_of(old), closing(old)
    outputs_of_old = [output.name for output in old.graph.output]
    told = [name for name in arguments.compared if name in tensors_of(old)] or outputs_of_old
    told = [in_front.get(name, name) for name in told]
    told_session = session(with_outputs(arguments.old, told))
    leasts = [1.0 if name in in_front else 0.0 for name in told]
    known = tensors_of(old) & tensors_of(new)
    names = [in_front[name] if in_front.get(name) in known else name for name in outputs_of_old]
    before, after = with_outputs(arguments.old, names), with_outputs(arguments.new, names)
    found, problem = runs((session(before), session(before, optimised=True), session(after)), inputs,
                          arguments.sizes_of_the_tool)
    said = {
        "compared": names,
        "tool": [at_sizes_of_the_tool(told_session, inputs, shapes, leasts) for shapes in arguments.sizes_of_the_tool],
        "runs": found,
        "problem": problem,
    }
    json.dump(said | {"seconds": time.monotonic() - started}, sys.stdout)


if __name__ == "__main__":
    main()
