"""Measures how well networks quantize, before and after fusing: the tables of docs/quantization.md.

    python benches/quantization.py [--binary target/release/acb-fuse] [--peer PEER=PYTHON...] [--only NETWORK...]
                                   [--variants NAME...]

needs onnx, onnxruntime and numpy as in requirements.txt. The networks and images are those of fixtures/trained; a
network is fed `(image / 255 - 0.45) / 0.25`. PYTHON is that of an environment in which the peer is installed
(equalize_with_peer.py says which); peers without one are left out. Per file, on the 1,000 test images:

    float      the accuracy in float32; the file is also checked to compute what the exported one computes
    Wn         weights rounded to n bits, symmetric, one step per tensor (activations float): SQNR of the outputs, accuracy
    W8/c       the same with 8 bits and one step per output channel
    int8       ONNX Runtime's quantize_static, QDQ, uint8 activations (min-max on the 256 calibration images), int8 weights,
               one step per tensor, or per channel (int8/c), run with graph optimizations off: the file's defined
               arithmetic. (Kernels of a processor with AVX2 and no VNNI saturate; that says nothing about the file.)
    file       QuantizeLinear and Conv of the file that is quantized per channel

SQNR = 10 log10(sum y^2 / sum (y - y_quantized)^2) over the logits, y of the exported network in float32.

The second table equalizes each fused network, as it is and with `Clip(0, 6)` for every Relu, and says what that changed:
the largest difference of the outputs on the test images, relative to the largest output, and how many kernels changed.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper as nh
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.preprocess import quant_pre_process

logging.disable(logging.WARNING)
TRAINED = Path(__file__).resolve().parent.parent / "fixtures" / "trained"
EQUALIZE = str(Path(__file__).resolve().parent / "equalize_with_peer.py")
STORED = np.load(TRAINED / "images" / "images.npz")


def normalised(images):
    return (images.astype(np.float32) / 255 - 0.45) / 0.25


class Row(NamedTuple):
    """A row of each network's table: the row whose file is read, and the command that makes this row's file of it."""
    name: str
    read: "Row | None"
    command: tuple[str, ...]


ACB_FUSE = "{binary}", "{read}", "{written}", "-q"
IMAGES = "--input", "x={calibration}"
PEERS = {"onnxsim": "onnxsim", "aimet": "AIMET", "quark": "AMD Quark"}
EXPORTED = Row("as exported", None, ())
FUSED = Row("fused", EXPORTED, ACB_FUSE)
EQUALIZED = Row("`--equalize`", EXPORTED, (*ACB_FUSE, "--equalize", *IMAGES))
BY_PEERS = tuple(
    Row(f"fused, then {title}", FUSED, ("{" + peer + "}", EQUALIZE, peer, "{read}", "{written}"))
    for peer, title in PEERS.items())
ROWS = (
    EXPORTED,
    FUSED,
    Row("`--keep-identity auto`", EXPORTED, (*ACB_FUSE, "--keep-identity", "auto")),
    Row("`--keep-identity always`", EXPORTED, (*ACB_FUSE, "--keep-identity", "always")),
    EQUALIZED,
    Row("`--equalize=exact`", EXPORTED, (*ACB_FUSE, "--equalize=exact", *IMAGES)),
    Row("`--equalize` without `--input`", EXPORTED, (*ACB_FUSE, "--equalize")),
    Row("`--for int8`", EXPORTED, (*ACB_FUSE, "--for", "int8", *IMAGES)),
    *BY_PEERS,
)
COLUMNS = ("network", "file", "float", "W8", "W8/c", "W5", "W4", "int8", "int8/c", "quantized file")
TEST, LABELS, CALIBRATION = normalised(STORED["test"]), STORED["labels"], normalised(STORED["calibration"])


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
    """Returns the model with the weights of Conv, ConvTranspose, Gemm and MatMul on a symmetric grid of `bits` bits."""
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
    """Returns the cells of one file's row; `reference` is the output of the exported network."""
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


class Maker:
    """Makes the files of one network, in a folder."""

    def __init__(self, exported, folder, tools):
        self.exported, self.folder = exported, folder
        self.places = {**tools, "calibration": f"{folder}/calibration.npy"}
        np.save(self.places["calibration"], CALIBRATION)

    def file(self, row):
        """Returns the path of a row's file, which is made when it is first asked for."""
        if row is EXPORTED:
            return self.exported
        written = f"{self.folder}/{ROWS.index(row)}.onnx"
        if not Path(written).exists():
            self.run(row, self.file(row.read), written)
        return written

    def run(self, row, read, written):
        command = [word.format(**self.places, read=read, written=written) for word in row.command]
        # The standard output is for the tables alone; what peers print goes elsewhere.
        subprocess.run(command, check=True, stdout=sys.stderr)


def with_relu6(path, written):
    """Writes the model with a Clip from 0 to 6 for every Relu, whose bounds are Constant nodes as PyTorch exports them."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Clip"
            node.input.extend(["clip.0", "clip.6"])
    for end in (0, 6):
        value = nh.from_array(np.array(end, np.float32))
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [f"clip.{end}"], f"clip.{end}", value=value))
    onnx.save(model, written)


def kernels(path):
    """Returns the weights of Conv and Gemm nodes, by the names of their outputs."""
    graph = onnx.load(path).graph
    stored = {t.name: t for t in graph.initializer}
    return {n.output[0]: nh.to_array(stored[n.input[1]]) for n in graph.node if n.op_type in ("Conv", "Gemm")}


def change(before, after):
    """Returns a cell of the second table: the relative difference of the outputs, and the number of changed kernels."""
    wanted, found = run(before, optimise=False), run(after, optimise=False)
    difference = np.abs(found - wanted).max() / np.abs(wanted).max()
    old, new = kernels(before), kernels(after)
    scaled = sum(not np.array_equal(old[name], new[name]) for name in old)
    return f"{difference:.0e}, {scaled} of {len(old)}"


def first_table(networks, rows, tools):
    print(head(COLUMNS))
    for network in networks:
        with tempfile.TemporaryDirectory() as folder:
            maker = Maker(str(TRAINED / network / "folded.onnx"), folder, tools)
            reference = run(maker.exported, optimise=False)
            for row in rows:
                print(line([network, row.name, *figures(maker.file(row), reference)]), flush=True)


def second_table(networks, rows, tools):
    print(head(["network", "activations", *(row.name for row in rows)]))
    for network in networks:
        with tempfile.TemporaryDirectory() as folder:
            maker = Maker(str(TRAINED / network / "folded.onnx"), folder, tools)
            clipped, equalized = f"{folder}/relu6.onnx", f"{folder}/equalized.onnx"
            with_relu6(maker.file(FUSED), clipped)
            for activations, read in ("Relu", maker.file(FUSED)), ("ReLU6", clipped):
                cells = [network, activations]
                for row in rows:
                    maker.run(row, read, equalized)
                    cells.append(change(read, equalized))
                print(line(cells), flush=True)


def can_run(row, tools):
    return not row.command or row.command[0].strip("{}") in tools


def line(cells):
    return "| " + " | ".join(cells) + " |"


def head(columns):
    return line(columns) + "\n" + "| --- " * len(columns) + "|"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", default="target/release/acb-fuse", help="acb-fuse")
    arguments.add_argument("--only", nargs="+", default=["acnet_quick", "acnet_resnet", "mobileone", "repvgg"])
    arguments.add_argument("--variants", nargs="+", choices=[row.name for row in ROWS])
    arguments.add_argument("--peer", nargs="+", default=[], metavar="PEER=PYTHON", help=", ".join(PEERS))
    arguments = arguments.parse_args()
    tools = {"binary": arguments.binary, **dict(peer.split("=", 1) for peer in arguments.peer)}
    unknown = set(tools) - {"binary", *PEERS}
    if unknown:
        sys.exit(f"no such peer: {', '.join(unknown)}")
    rows = [row for row in ROWS if can_run(row, tools) and row.name in (arguments.variants or [row.name])]
    first_table(arguments.only, rows, tools)
    print()
    second_table(arguments.only, [row for row in rows if row in (EQUALIZED, *BY_PEERS)], tools)


main()
