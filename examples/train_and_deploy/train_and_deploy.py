"""Trains a network with ACBs, exports, fuses and quantizes it, and prints the results as Markdown.

    python examples/train_and_deploy/train_and_deploy.py [FOLDER]

The models stay in FOLDER, if one is given. README.md beside this file has the output of one run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import platform
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import cycle, islice, permutations
from pathlib import Path
from statistics import median

import acb_fuse
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from sklearn.datasets import load_digits
from torch import nn

from acb import replace_convolutions

Floats = npt.NDArray[np.float32]

SEED, EPOCHS, BATCH, LEARNING_RATE = 0, 40, 32, 0.01
TRAINING, CALIBRATION = 1000, 256
# PyTorch's exporters -> the argument `dynamo` of `torch.onnx.export` for each.
EXPORTERS = {"TorchScript": False, "dynamo": True}
WARM_UP, ROUNDS = 20, 600


# --- the data and the network -------------------------------------------------


@dataclass(frozen=True)
class Images:
    pixels: Floats
    """`[N, 1, 8, 8]`, from -0.5 to 0.5."""
    labels: npt.NDArray[np.int64]


def digits() -> tuple[Images, Images]:
    """Returns scikit-learn's 1,797 handwritten digits in a seeded order: the training set and the test set."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(pixels))
    pixels = (pixels[order] / 16 - 0.5).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = labels[order].astype(np.int64)
    return Images(pixels[:TRAINING], labels[:TRAINING]), Images(pixels[TRAINING:], labels[TRAINING:])


def plain_network() -> nn.Sequential:
    """Returns a network with five 3×3 convolutions, written without any regard for ACBs."""
    torch.manual_seed(SEED)
    return nn.Sequential(
        *stage(1, 32, 1), *stage(32, 32, 1), *stage(32, 64, 2), *stage(64, 64, 1), *stage(64, 128, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def stage(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()


def train(network: nn.Module, images: Images) -> nn.Module:
    """Trains with the same seed, batches and learning rates whatever the network is, and returns it in eval mode."""
    pixels, labels = torch.from_numpy(images.pixels), torch.from_numpy(images.labels)
    generator = torch.Generator().manual_seed(SEED)
    steps = EPOCHS * (len(pixels) // BATCH)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(pixels), generator=generator).split(BATCH)[:len(pixels) // BATCH]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(pixels[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


# --- export, quantize, run ----------------------------------------------------


def export(network: nn.Module, dynamo: bool, path: Path) -> None:
    """Exports with PyTorch's defaults and an open batch size: norms that follow a convolution are folded."""
    images = torch.zeros(2, 1, 8, 8)
    with contextlib.redirect_stdout(io.StringIO()):
        if dynamo:
            torch.onnx.export(network, (images,), path, dynamo=True, input_names=["image"], external_data=False,
                              dynamic_shapes=({0: torch.export.Dim("batch")},))
        else:
            torch.onnx.export(network, (images,), path, dynamo=False, input_names=["image"],
                              dynamic_axes={"image": {0: "batch"}})


class Batches(CalibrationDataReader):
    """The reader from which `quantize_static` takes calibration images."""

    def __init__(self, pixels: Floats) -> None:
        self.batches = iter(np.split(pixels, len(pixels) // BATCH))

    def get_next(self) -> dict[str, Floats] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


def quantize(path: Path, target: Path, pixels: Floats) -> None:
    """Quantizes statically: int8 weights, uint8 activations, one step per output channel."""
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, target, Batches(pixels), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    prepared.unlink()


def session(path: Path, optimize: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def logits(path: Path, pixels: Floats) -> Floats:
    """Returns a model's outputs for images by the arithmetic that the file defines: optimisations are off."""
    outputs: Floats = session(path, optimize=False).run(None, {"image": pixels})[0]
    return outputs


def latencies(paths: Iterable[Path], image: Floats) -> list[float]:
    """Returns each model's median milliseconds on one image and one thread; models run in turns, in every order."""
    sessions = [session(path) for path in paths]
    times: list[list[float]] = [[] for _ in sessions]
    for order in islice(cycle(permutations(range(len(sessions)))), WARM_UP + ROUNDS):
        for i in order:
            start = time.perf_counter()
            sessions[i].run(None, {"image": image})
            times[i].append(1000 * (time.perf_counter() - start))
    return [median(column[WARM_UP:]) for column in times]


# --- the magnitude of kernels -------------------------------------------------


def average_magnitude(path: Path) -> npt.NDArray[np.float64]:
    """Returns A of Eq. 9: S of each 3×3 convolution over its largest value, averaged over a file's convolutions.

    S (Eq. 10) is the sum of |w| over filters and channels, per position. In a file with ACBs, this takes the square
    kernels and leaves out the arms.
    """
    model = onnx.load(path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kernels = [stored[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    sums = [np.abs(kernel).sum(axis=(0, 1), dtype=np.float64) for kernel in kernels if kernel.shape[2:] == (3, 3)]
    average: npt.NDArray[np.float64] = np.mean([s / s.max() for s in sums], axis=0)
    return average


def magnitude_table(columns: dict[str, Path]) -> list[str]:
    """Returns a table with the matrices A side by side, as in Fig. 6."""
    matrices = [average_magnitude(path) for path in columns.values()]
    rows = [[" ".join(f"{value:.3f}" for value in matrix[row]) for matrix in matrices] for row in range(3)]
    return table(list(columns), rows)


# --- the pipeline -------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A network as a float32 file, and the path of the int8 file that it is quantized to."""

    name: str
    path: Path
    int8: Path


def variants(plain: nn.Module, acnet: nn.Module, calibration: Path, folder: Path) -> list[Variant]:
    """Exports the plain network once and the ACNet with each exporter, and fuses the latter, plainly and for int8."""
    made = [variant("plain network", folder)]
    export(plain, EXPORTERS["TorchScript"], made[0].path)
    for exporter, dynamo in EXPORTERS.items():
        exported, fused, for_int8 = (variant(f"ACNet, {exporter}{suffix}", folder)
                                     for suffix in ("", ", fused", ", fused for int8"))
        export(acnet, dynamo, exported.path)
        acb_fuse.fuse(exported.path, fused.path, require_fusion=True, require_run=True)
        acb_fuse.fuse(exported.path, for_int8.path, for_="int8", inputs={"image": calibration})
        made += exported, fused, for_int8
    return made


def variant(name: str, folder: Path) -> Variant:
    stem = name.replace(", ", "_").replace(" ", "_").lower()
    return Variant(name, folder / f"{stem}.onnx", folder / f"{stem}_int8.onnx")


COLUMNS = ["file", "nodes", "Conv", "kB", "ms", "accuracy", "other predictions", "int8 kB", "int8 accuracy",
           "int8 SQNR"]


def results(made: list[Variant], images: Images) -> list[str]:
    """Returns a table with a row per file; a fused file is compared with the exported one that it was made from.

    Exits if a fused file predicts another class for an image.
    """
    rows, reference = [], np.empty(0, np.float32)
    for each, ms in zip(made, latencies([each.path for each in made], images.pixels[:1])):
        outputs, rounded = logits(each.path, images.pixels), logits(each.int8, images.pixels)
        if "fused" not in each.name:
            reference = outputs
        others = other_predictions(reference, outputs)
        if others:
            sys.exit(f"{each.name}: other predictions of {others} images")
        operators = Counter(node.op_type for node in onnx.load(each.path).graph.node)
        rows.append([
            each.name, str(operators.total()), str(operators["Conv"]), kilobytes(each.path), f"{ms:.3f}",
            f"{accuracy(outputs, images):.4f}", str(others), kilobytes(each.int8),
            f"{accuracy(rounded, images):.4f}", f"{sqnr(reference, rounded):.1f} dB"])
    return table(COLUMNS, rows)


def accuracy(outputs: Floats, images: Images) -> float:
    return float((outputs.argmax(1) == images.labels).mean())


def other_predictions(reference: Floats, outputs: Floats) -> int:
    return int((reference.argmax(1) != outputs.argmax(1)).sum())


def sqnr(reference: Floats, outputs: Floats) -> float:
    """Returns the signal-to-quantization-noise ratio of `outputs` in dB: 6 dB are one bit."""
    wanted, found = reference.astype(np.float64), outputs.astype(np.float64)
    return float(10 * np.log10((wanted ** 2).sum() / ((wanted - found) ** 2).sum()))


def kilobytes(path: Path) -> str:
    return f"{path.stat().st_size / 1000:.0f}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def run(folder: Path) -> list[str]:
    """Runs the whole pipeline and returns the lines of its result."""
    started = time.perf_counter()
    training, test = digits()
    calibration = folder / "calibration.npy"
    np.save(calibration, training.pixels[:CALIBRATION])
    plain, acnet = train(plain_network(), training), train(replace_convolutions(plain_network()), training)
    trained = time.perf_counter() - started
    made = variants(plain, acnet, calibration, folder)
    for each in made:
        quantize(each.path, each.int8, training.pixels[:CALIBRATION])
    magnitudes = magnitude_table({"plain network": made[0].path, "ACNet, square kernels": made[1].path,
                                  "ACNet, fused": made[2].path})
    rows = results(made, test)
    took = f"{time.perf_counter() - started:.0f} seconds, {trained:.0f} of them training"
    return [*rows, "", *magnitudes, "", f"{took}; {versions()}"]


def versions() -> str:
    packages = "torch", "onnxruntime", "onnx", "numpy", "scikit-learn"
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    folder = parser.parse_args().folder
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    # Layers this small gain nothing from a second thread, and on busy cores, threads lose much time waiting.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        print("\n".join(run(folder or Path(temporary))))


if __name__ == "__main__":
    main()
