"""Makes networks of large depthwise kernels with random weights, for the benchmarks.

    python benches/large_kernels.py MODEL FOLDER

writes FOLDER/model.onnx. `depthwise27` is one RepLKNet block: a 27x27 and a 5x5 depthwise kernel of 512 channels.
`replknet31b` is RepLKNet-31B (Ding et al., CVPR 2022) at full width. The nodes are those that PyTorch's exporter would
write.
"""

import math
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures" / "export"))

from fixture import random_weight

# Of each of the four stages of RepLKNet-31B: channels, blocks, and the size of the large kernel.
STAGES = (128, 2, 31), (256, 2, 29), (512, 18, 27), (1024, 2, 13)
SMALL_KERNEL = 5
# Channels inside a ConvFFN, relative to those outside.
EXPANSION = 4


class Network:
    """The nodes and weights of a network under construction; layers are named by their numbers."""

    def __init__(self, seed):
        self.rng, self.nodes, self.weights = np.random.default_rng(seed), [], []

    def node(self, operator, inputs, **attributes):
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}.y"], name=name, **attributes))
        return f"{name}.y"

    def weight(self, part, shape):
        name = f"{len(self.nodes)}.{part}"
        values = random_weight(name, shape, self.rng, fan_in=math.prod(shape[1:]))
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def number(self, value):
        name = f"{len(self.nodes)}.number"
        self.weights.append(numpy_helper.from_array(np.float32(value), name))
        return name

    def norm(self, x, channels):
        parts = [self.weight(part, (channels,)) for part in ("gamma", "beta", "mean", "var")]
        return self.node("BatchNormalization", [x, *parts])

    def convolution(self, x, inputs, outputs, size, stride=1, groups=1):
        """Adds a convolution without a bias, and its batch norm."""
        kernel = self.weight("weight", (outputs, inputs // groups, size, size))
        y = self.node("Conv", [x, kernel], kernel_shape=[size] * 2, pads=[size // 2] * 4, strides=[stride] * 2,
                      group=groups)
        return self.norm(y, outputs)

    def activated(self, *convolution, **options):
        return self.node("Relu", [self.convolution(*convolution, **options)])

    def large_kernel(self, x, channels, size):
        arms = [self.convolution(x, channels, channels, arm, groups=channels) for arm in (size, SMALL_KERNEL)]
        return self.node("Add", arms)

    def block(self, x, channels, size):
        """Adds a RepLKBlock: a large depthwise kernel between two 1x1 convolutions, beside its input."""
        y = self.activated(self.norm(x, channels), channels, channels, 1)
        y = self.node("Relu", [self.large_kernel(y, channels, size)])
        return self.node("Add", [x, self.convolution(y, channels, channels, 1)])

    def feed_forward(self, x, channels):
        """Adds a ConvFFN: two 1x1 convolutions with a GELU between them, beside their input."""
        y = self.convolution(self.norm(x, channels), channels, EXPANSION * channels, 1)
        error = self.node("Erf", [self.node("Div", [y, self.number(math.sqrt(2))])])
        product = self.node("Mul", [y, self.node("Add", [error, self.number(1)])])
        y = self.node("Mul", [product, self.number(0.5)])
        return self.node("Add", [x, self.convolution(y, EXPANSION * channels, channels, 1)])

    def write(self, x, shape, folder):
        """Writes the network whose input `x` has this shape; its output is that of the last node."""
        given = helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)
        made = helper.make_empty_tensor_value_info(self.nodes[-1].output[0])
        made.type.tensor_type.elem_type = TensorProto.FLOAT
        graph = helper.make_graph(self.nodes, "network", [given], [made], self.weights)
        onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]),
                  folder / "model.onnx")


def write_depthwise(folder):
    channels, _, size = STAGES[2]
    network = Network(size)
    network.large_kernel("x", channels, size)
    network.write("x", [1, channels, 14, 14], folder)


def write_replknet(folder):
    network, channels = Network(31), STAGES[0][0]
    x = network.activated("x", 3, channels, 3, stride=2)
    x = network.activated(x, channels, channels, 3, groups=channels)
    x = network.activated(x, channels, channels, 1)
    x = network.activated(x, channels, channels, 3, stride=2, groups=channels)
    for stage, (own, blocks, size) in enumerate(STAGES):
        if stage > 0:
            x = network.activated(x, channels, own, 1)
            x = network.activated(x, own, own, 3, stride=2, groups=own)
        channels = own
        for _ in range(blocks):
            x = network.feed_forward(network.block(x, channels, size), channels)
        x = network.norm(x, channels)
    x = network.node("Flatten", [network.node("GlobalAveragePool", [x])])
    network.node("Gemm", [x, network.weight("head", (1000, channels)), network.weight("bias", (1000,))], transB=1)
    network.write("x", [1, 3, 224, 224], folder)


MODELS = {"depthwise27": write_depthwise, "replknet31b": write_replknet}

if __name__ == "__main__":
    name, folder = sys.argv[1:]
    MODELS[name](Path(folder))
