"""Measures how well networks quantize, before and after fusing: the table of docs/quantization.md.

    python benches/quantization.py [--binary target/release/acb-fuse] [--only NETWORK...] [--variants NAME...]

needs onnx, onnxruntime and numpy as in requirements.txt. The networks and images are those of fixtures/trained; a
network is fed `(image / 255 - 0.45) / 0.25`. Per file, of the 1,000 test images:

    float      the accuracy in float32; that the file computes what the exported one computes is checked
    Wn         weights rounded to n bits, symmetric, one step per tensor (activations float): SQNR of the outputs, accuracy
    W8/c       the same with 8 bits and one step per output channel
    int8       ONNX Runtime's quantize_static, QDQ, uint8 activations (min-max on the 256 calibration images), int8 weights,
               one step per tensor, or per channel (int8/c), run with graph optimizations off: the file's defined
               arithmetic. (Kernels of a processor with AVX2 and no VNNI saturate; that says nothing about the file.)
    file       QuantizeLinear and Conv of the file that is quantized per channel

SQNR = 10 log10(sum y^2 / sum (y - y_quantized)^2) over the logits, y of the exported network in float32.
"""

import argparse
import logging
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper as nh
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.preprocess import quant_pre_process

logging.disable(logging.WARNING)
TRAINED = Path(__file__).resolve().parent.parent / "fixtures" / "trained"
IMAGES = np.load(TRAINED / "images" / "images.npz")


def normalised(images):
    return (images.astype(np.float32) / 255 - 0.45) / 0.25


# How a network is fused, and the flags for that; scales are found on the calibration images.
VARIANTS = {
    "fused": [],
    "`--keep-identity auto`": ["--keep-identity", "auto"],
    "`--keep-identity always`": ["--keep-identity", "always"],
    "`--equalize`": ["--equalize", "--input", "x={calibration}"],
    "`--equalize=exact`": ["--equalize=exact", "--input", "x={calibration}"],
    "`--for int8`": ["--for", "int8", "--input", "x={calibration}"],
}
COLUMNS = ("network", "file", "float", "W8", "W8/c", "W5", "W4", "int8", "int8/c", "quantized file")
TEST, LABELS, CALIBRATION = normalised(IMAGES["test"]), IMAGES["labels"], normalised(IMAGES["calibration"])


class Reader(CalibrationDataReader):
    def __init__(self, name):
        self.batches = iter([{name: CALIBRATION[i:i + 32]} for i in range(0, len(CALIBRATION), 32)])

    def get_next(self):
        return next(self.batches, None)


def run(model, optimise=True):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, str) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: TEST[i:i + 250]})[0] for i in range(0, len(TEST), 250)])


def sqnr(wanted, found):
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    return 10 * np.log10((wanted ** 2).sum() / max(((wanted - found) ** 2).sum(), 1e-300))


def accuracy(outputs):
    return (outputs.argmax(1) == LABELS).mean()


def rounded(model, bits, per_channel):
    """The model with the weights of Conv, ConvTranspose, Gemm and MatMul on a symmetric grid of `bits` bits."""
    copy, top = onnx.ModelProto(), 2 ** (bits - 1) - 1
    copy.CopyFrom(model)
    stored = {t.name: t for t in copy.graph.initializer}
    stored |= {n.output[0]: n.attribute[0].t for n in copy.graph.node if n.op_type == "Constant"}
    axis = {}
    for n in copy.graph.node:
        if n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and len(n.input) > 1 and n.input[1] in stored:
            transposed = any(a.name == "transB" and a.i for a in n.attribute)
            axis[n.input[1]] = 0 if n.op_type == "Conv" or transposed else 1
    for name, channels in axis.items():
        weights = nh.to_array(stored[name]).astype(np.float64)
        if weights.ndim < 2:
            continue
        others = tuple(i for i in range(weights.ndim) if i != channels)
        largest = np.abs(weights).max(axis=others, keepdims=True) if per_channel else np.abs(weights).max()
        step = np.where(largest == 0, 1, largest) / top
        stored[name].CopyFrom(nh.from_array((np.round(weights / step) * step).astype(np.float32), stored[name].name))
    return copy


def quantized(path, per_channel, folder):
    prepared, out = str(folder / "prepared.onnx"), str(folder / f"int8_{per_channel}.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    name = onnx.load(prepared).graph.input[0].name
    quantize_static(prepared, out, Reader(name), quant_format=QuantFormat.QDQ, per_channel=per_channel,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax, extra_options={"WeightSymmetric": True})
    return out


def figures(path, reference):
    """The cells of one file's row."""
    model, own = onnx.load(path), run(path, optimise=False)
    difference = np.abs(own - reference).max() / np.abs(reference).max()
    assert difference < 1e-4, f"{path} is not the same function: {difference:.0e}"
    cells = [f"{accuracy(own):.3f}"]
    for bits, per_channel in ((8, False), (8, True), (5, False), (4, False)):
        out = run(rounded(model, bits, per_channel))
        said = f"{sqnr(reference, out):.1f} dB"
        cells.append(said if bits == 8 else f"{said}, {accuracy(out):.3f}")
    with tempfile.TemporaryDirectory() as folder:
        for per_channel in (False, True):
            file = quantized(path, per_channel, Path(folder))
            out = run(file, optimise=False)
            cells.append(f"{sqnr(reference, out):.1f} dB, {accuracy(out):.3f}")
        count = Counter(node.op_type for node in onnx.load(file).graph.node)
        cells.append(f"{count['QuantizeLinear']} Q, {count['Conv']} Conv")
    return cells


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", default="target/release/acb-fuse", help="acb-fuse")
    arguments.add_argument("--only", nargs="+", default=["acnet_quick", "acnet_resnet", "mobileone", "repvgg"])
    arguments.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = arguments.parse_args()
    print("| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|")
    for network in arguments.only:
        exported = str(TRAINED / network / "folded.onnx")
        reference = run(exported, optimise=False)
        print(f"| {network} | as exported | " + " | ".join(figures(exported, reference)) + " |", flush=True)
        for variant in arguments.variants:
            with tempfile.TemporaryDirectory() as folder:
                fused, calibration = f"{folder}/fused.onnx", f"{folder}/calibration.npy"
                np.save(calibration, CALIBRATION)
                flags = [flag.format(calibration=calibration) for flag in VARIANTS[variant]]
                subprocess.run([arguments.binary, exported, fused, "-q", *flags], check=True)
                row = " | ".join(figures(fused, reference))
            print(f"| {network} | {variant} | {row} |", flush=True)


main()
