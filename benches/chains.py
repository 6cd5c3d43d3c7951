"""Makes chains of blocks with random weights, for the benchmarks.

    python benches/chains.py MODEL FOLDER

writes FOLDER/model.onnx; the model `wide` has its weights beside it in model.onnx.data. The nodes are those that
PyTorch's exporter would write.
"""

import math
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures" / "export"))

from fixture import random_weight


def write_chain(blocks, channels, size, folder, external_data=False):
    """Writes `blocks` ACBs of 3x3, 1x3 and 3x1 with their batch norms, each followed by a ReLU: 13 nodes per block.

    The norms of the arms read the square branch's mean and variance through Identity nodes, as TorchScript's exporter
    writes weights that are equal.
    """
    rng = np.random.default_rng(blocks)
    side_file = open(folder / "model.onnx.data", "wb") if external_data else None
    nodes, weights = [], []

    def weight(name, shape):
        # If blocks enlarged their input at all, 10,000 of them would overflow; weights this small shrink it instead.
        values = random_weight(name, shape, rng, fan_in=6 * math.prod(shape[1:]))
        weights.append(stored_beside(name, values, side_file) if side_file else numpy_helper.from_array(values, name))
        return name

    def node(operator, inputs, output, **attributes):
        nodes.append(helper.make_node(operator, inputs, [output], name=f"{operator}_{len(nodes)}", **attributes))
        return output

    def branch(x, block, arm, height, width):
        name = f"{block}.{arm}"
        kernel = weight(f"{name}.weight", (channels, channels, height, width))
        y = node("Conv", [x, kernel], f"{name}.conv", kernel_shape=[height, width], pads=[height // 2, width // 2] * 2)
        own = [weight(f"{name}.{part}", (channels,)) for part in ("gamma", "beta")]
        if arm == "square":
            shared = [weight(f"{name}.{part}", (channels,)) for part in ("mean", "var")]
        else:
            shared = [node("Identity", [f"{block}.square.{part}"], f"{name}.{part}") for part in ("mean", "var")]
        return node("BatchNormalization", [y, *own, *shared], f"{name}.norm")

    x = "x"
    for i in range(blocks):
        block = f"blocks.{i}"
        square = branch(x, block, "square", 3, 3)
        horizontal = branch(x, block, "horizontal", 1, 3)
        vertical = branch(x, block, "vertical", 3, 1)
        total = node("Add", [square, horizontal], f"{block}.add")
        x = node("Relu", [node("Add", [total, vertical], f"{block}.add_1")], f"{block}.relu")
    if side_file:
        side_file.close()

    shape = [1, channels, size, size]
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", x))
    graph = helper.make_graph(nodes, "chain", [given], [made], weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, folder / "model.onnx")


def stored_beside(name, values, file):
    """Returns a tensor whose values are appended to `file`, so that the largest model never has to be in memory."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape,
                         data_location=TensorProto.EXTERNAL)
    for key, value in ("location", Path(file.name).name), ("offset", file.tell()), ("length", values.nbytes):
        tensor.external_data.add(key=key, value=str(value))
    file.write(values.tobytes())
    return tensor


CHAINS = {
    "chain_100": partial(write_chain, 100, 8, 8),
    "chain_1000": partial(write_chain, 1000, 8, 8),
    "chain_10000": partial(write_chain, 10000, 8, 8),
    "wide": partial(write_chain, 9, 2048, 8, external_data=True),
}

if __name__ == "__main__":
    name, folder = sys.argv[1:]
    CHAINS[name](Path(folder))
