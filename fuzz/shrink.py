"""Makes the model of a finding of differential.py smaller: fewer nodes that show the same kind of finding.

    python fuzz/shrink.py --tool target/release/acb-fuse DIR/findings/KIND/SEED FILE.onnx

Tries each tensor as the only output, each tensor as an input, and the model without each node, for as long as one of
these still shows that kind of finding. FILE.npz has the inputs under each assignment, as `ASSIGNMENT/NAME`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from agreement import NotRun, Runner
from differential import try_models
from random_models import Case


def copied(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def pruned(model, feeds):
    """Removes what no output needs from a model and its feeds, and returns both."""
    graph = model.graph
    needed, kept = {output.name for output in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.insert(0, node)
            needed |= {name for name in node.input if name}
            for attribute in node.attribute:
                needed |= {name for inner in attribute.g.node for name in inner.input}
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(kept)
    for field in (graph.initializer, graph.input):
        entries = [entry for entry in field if entry.name in needed]
        del field[:]
        field.extend(entries)
    del graph.value_info[:]
    names = {value.name for value in graph.input}
    return model, [{name: value for name, value in feed.items() if name in names} for feed in feeds]


def only_output(model, feeds, name, element_type):
    model = copied(model)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(name, element_type, None))
    return pruned(model, feeds)


def as_input(model, feeds, name, values):
    """Returns the model and feeds with a tensor as an input of the same values; None if its rank varies.

    Sizes that are not the same under all assignments are open.
    """
    model = copied(model)
    shapes = [value.shape for value in values]
    if len({len(shape) for shape in shapes}) > 1:
        return None
    dims = [sizes[0] if len(set(sizes)) == 1 else f"d{axis}" for axis, sizes in enumerate(zip(*shapes))]
    element_type = helper.np_dtype_to_tensor_dtype(values[0].dtype)
    for node in model.graph.node:
        for i, output in enumerate(node.output):
            if output == name:
                node.output[i] = name + ".gone"
    model.graph.input.append(helper.make_tensor_value_info(name, element_type, dims))
    return pruned(model, [feed | {name: value} for feed, value in zip(feeds, values)])


def bypassed(model, feeds, index):
    """Returns the model and feeds with a node's first input in place of its first output, or None if that cannot be."""
    model = copied(model)
    node = model.graph.node[index]
    if not node.input or node.output[0] in {output.name for output in model.graph.output}:
        return None
    for other in model.graph.node:
        for i, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[i] = node.input[0]
    return pruned(model, feeds)


def every_value(model, feeds):
    """Returns all tensors of the main graph, by name, under each assignment; none if one of them does not run."""
    model = copied(model)
    names = [name for node in model.graph.node for name in node.output if name]
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    try:
        runner = Runner(model.SerializeToString())
        runs = [dict(zip(runner.outputs, runner(feed))) for feed in feeds]
    except NotRun:
        return {}
    return {name: [run[name] for run in runs] for name in names}


def candidates(model, feeds):
    values = every_value(model, feeds)
    graph = model.graph
    element_type = graph.output[0].type.tensor_type.elem_type
    for name in list(values) + [output.name for output in graph.output if len(graph.output) > 1]:
        if name not in {output.name for output in graph.output} or len(graph.output) > 1:
            yield only_output(model, feeds, name, element_type)
    for name in reversed(values):
        if name not in {output.name for output in graph.output} and values[name][0].dtype.kind == "f":
            yield as_input(model, feeds, name, values[name])
    for index in reversed(range(len(graph.node))):
        yield bypassed(model, feeds, index)


def runner_of(model):
    try:
        return Runner(model.SerializeToString())
    except NotRun:
        return None


def runs(runner, feed):
    try:
        runner(feed)
    except NotRun:
        return False
    return True


def shrink(tool, model, feeds, kind):
    def is_found(model, feeds):
        _, findings = try_models(tool, {0: Case(0, model, feeds, [], False, False)})
        return any(finding["kind"] == kind for finding in findings)

    runner = runner_of(model)
    feeds = [feed for feed in feeds if runner is None or runs(runner, feed)]
    while True:
        for candidate in candidates(model, feeds):
            if candidate and len(candidate[0].graph.node) < len(model.graph.node) and is_found(*candidate):
                model, feeds = candidate
                break
        else:
            return model, feeds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True)
    parser.add_argument("finding", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    finding = json.loads((arguments.finding / "finding.json").read_text())
    model = onnx.load(arguments.finding / "in.onnx")
    feeds = []
    for path in sorted(arguments.finding.glob("inputs_*.npz")):
        arrays = np.load(path)
        feeds.append({name: arrays[str(i)] for i, name in enumerate(finding["inputs"])})
    before = len(model.graph.node)
    model, feeds = shrink(str(Path(arguments.tool).resolve()), model, feeds, finding["kind"])
    onnx.save(model, arguments.file)
    np.savez(arguments.file.with_suffix(".npz"), **{f"{number}/{name}": value for number, feed in enumerate(feeds)
                                                    for name, value in feed.items()})
    print(f"{finding['kind']}: {before} -> {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
