"""Exports the paper's architectures at full width and with random weights, by PyTorch, for the benchmarks.

    python benches/architectures.py MODEL FOLDER

writes FOLDER/model.onnx; the `_plain_external` variants have their weights beside it in model.onnx.data.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures" / "export"))

from acnet import ACB, initialise
from export_networks import plain_twin
from exporters import export
from fixture import random_inputs, seeded
from networks import alexnet, cifar_quick, densenet121, densenet40, resnet18, resnet56, vgg16, wrn16_8

VGG16 = (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)

# Name -> architecture at the width of its paper, and the height and width of its input.
ARCHITECTURES = {
    "cifar_quick": (partial(cifar_quick, widths=(32, 32, 64), hidden=64), 32),
    "vgg16_cifar": (partial(vgg16, stages=VGG16, hidden=(512,)), 32),
    "resnet56": (partial(resnet56, widths=(16, 32, 64)), 32),
    "wrn16_8": (partial(wrn16_8, widths=(16, 128, 256, 512)), 32),
    "densenet40": (partial(densenet40, growth=12, channels=16), 32),
    "alexnet": (partial(alexnet, widths=(96, 256, 384, 384, 256), positions=36, hidden=4096, classes=1000), 227),
    "resnet18": (partial(resnet18, widths=(64, 128, 256, 512), classes=1000), 224),
    "densenet121": (partial(densenet121, growth=32, expansion=4, classes=1000), 224),
    "vgg16": (partial(vgg16, stages=VGG16, positions=49, hidden=(4096, 4096), classes=1000), 224),
}

# Number of images whose statistics scale the weights; a few are enough.
BATCH = 4


def write_acnet(name, folder):
    """Writes the training-time graph, with its batch norms."""
    export_network(acnet(name), name, folder, "torchscript_kept_static")


def write_float16(name, folder):
    """Writes the training-time graph in half precision."""
    write_acnet(name, folder)
    model = onnx.load(folder / "model.onnx")
    graph = model.graph
    for stored in graph.initializer:
        if stored.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(stored).astype(np.float16)
            stored.CopyFrom(numpy_helper.from_array(half, stored.name))
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, folder / "model.onnx")


def write_plain(name, folder):
    """Writes the plain architecture with the weights that the ACNet fuses to; the exporter folds its batch norms."""
    export_network(plain_twin(ARCHITECTURES[name][0], acnet(name)), name, folder, "torchscript_folded_static")


def write_plain_external(name, folder):
    write_plain(name, folder)
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data")


def acnet(name):
    architecture, size = ARCHITECTURES[name]
    rng = seeded(name)
    return initialise(architecture(ACB), random_inputs([(BATCH, 3, size, size)], rng), rng)


def export_network(module, name, folder, words):
    size = ARCHITECTURES[name][1]
    path = folder / f"{words}.onnx"
    export(module, random_inputs([(1, 3, size, size)], seeded(name)), path)
    path.rename(folder / "model.onnx")


# Suffix of a model's name, after the architecture's -> the function that writes this variant.
VARIANTS = {"": write_acnet, "_float16": write_float16, "_plain": write_plain, "_plain_external": write_plain_external}
MODELS = {f"{name}{variant}": partial(write, name) for name in ARCHITECTURES for variant, write in VARIANTS.items()}

if __name__ == "__main__":
    name, folder = sys.argv[1:]
    MODELS[name](Path(folder))
