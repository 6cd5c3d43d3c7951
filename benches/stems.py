"""Measures the latency in ONNX Runtime of stems that turn squares of pixels into channels, before and after fusing.

    python benches/stems.py ACB_FUSE

Both files of a stem run in turns, on one thread. Printed are the medians of both and their ratio.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

RUNS = 40
END = 2**63 - 1


class Stem:
    """The nodes and tensors of a stem that reads the input `x` of shape [1, channels, size, size]."""

    def __init__(self, channels, size):
        self.shape, self.nodes, self.tensors = [1, channels, size, size], [], []

    def tensor(self, values, dtype):
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, operator, inputs, **attributes):
        inputs = [name if isinstance(name, str) else self.tensor(name, np.int64) for name in inputs]
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"n{len(self.nodes)}", **attributes))
        return output

    def conv(self, x, inputs, outputs, taps, stride=1):
        rng = np.random.default_rng(len(self.nodes))
        weights = rng.standard_normal((outputs, inputs, taps, taps)) / np.sqrt(inputs * taps * taps)
        kernel = self.tensor(weights, np.float32)
        return self.node("Conv", [x, kernel], pads=[taps // 2] * 4, strides=[stride] * 2)

    def model(self, squares, inputs, outputs, taps):
        first = self.node("Relu", [self.conv(squares, inputs, outputs, taps)])
        last = self.conv(first, outputs, 2 * outputs, 3, stride=2)
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        made = helper.make_tensor_value_info(last, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "stem", [given], [made], self.tensors)
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def focus(channels, size, side):
    stem = Stem(channels, size)
    places = [(row, column) for column in range(side) for row in range(side)]
    steps = [[END, END], [2, 3], [side, side]]
    parts = [stem.node("Slice", ["x", [row, column], *steps]) for row, column in places]
    return stem, stem.node("Concat", parts, axis=1)


def space_to_depth(channels, size, side):
    stem = Stem(channels, size)
    return stem, stem.node("SpaceToDepth", ["x"], blocksize=side)


def pixel_unshuffle(channels, size, side):
    stem, parts = Stem(channels, size), size // side
    cut = stem.node("Reshape", ["x", [1, channels, parts, side, parts, side]])
    turned = stem.node("Transpose", [cut], perm=[0, 1, 3, 5, 2, 4])
    return stem, stem.node("Reshape", [turned, [1, channels * side**2, parts, parts]])


def compare(tool, model, shape, folder):
    before, after = folder / "before.onnx", folder / "after.onnx"
    onnx.save(model, before)
    subprocess.run([tool, before, after, "--force"], check=True, capture_output=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [onnxruntime.InferenceSession(path, options) for path in (before, after)]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    seconds = [[], []]
    for _ in range(RUNS):
        for session, own in zip(sessions, seconds):
            begin = time.perf_counter()
            session.run(None, {"x": x})
            own.append(time.perf_counter() - begin)
    nodes = [len(onnx.load(path).graph.node) for path in (before, after)]
    return nodes, [1000 * median(own) for own in seconds]


if __name__ == "__main__":
    print("| stem | channels, size, side; outputs, taps | nodes | ms | ratio |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for make in (focus, space_to_depth, pixel_unshuffle):
            for channels, size, side, outputs, taps in [
                (3, 640, 2, 32, 3), (3, 320, 2, 64, 3), (3, 224, 4, 64, 3), (3, 224, 4, 64, 1), (32, 64, 2, 64, 3),
            ]:
                stem, squares = make(channels, size, side)
                model = stem.model(squares, channels * side**2, outputs, taps)
                nodes, (old, new) = compare(sys.argv[1], model, stem.shape, Path(folder))
                sizes = f"{channels}, {size}, {side}; {outputs}, {taps}"
                print(f"| {make.__name__} | {sizes} | {nodes[0]} → {nodes[1]} | {old:.2f} → {new:.2f} | {new / old:.2f} |")
