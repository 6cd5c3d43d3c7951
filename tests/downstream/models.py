"""Finds or makes the models that engines run, and their inputs.

    python models.py LARGE FILE

writes one of the networks of full size, which needs the environment of fixtures/export/requirements.txt.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TOP = Path(__file__).resolve().parent.parent.parent
FIXTURES = TOP / "fixtures"
# Prefixes of a case's files that compute the same function with other nodes.
TWINS = "deployed_", "plain"
# A case whose norms in training mode become inference norms, which changes the function on purpose.
CONVERTED = "training_mode"
TRAINED_INPUT = (2, 3, 28, 28)
# Networks of full size, whose latency is measured.
LARGE = "resnet18_acnet", "mobileone_s0", "repvgg_a0"
LARGE_INPUT = (1, 3, 224, 224)


@dataclass(frozen=True)
class Fixture:
    group: str
    case: str
    path: Path

    @property
    def name(self) -> str:
        return f"{self.case}/{self.path.stem}"


def fixtures(group: str) -> Iterator[Fixture]:
    """Yields the first file of each case of a group, and in most groups also the last, which another exporter wrote.

    Groups with the first alone are `blocks` and `exporters`.
    """
    for case in sorted(path for path in (FIXTURES / group).iterdir() if path.is_dir() and path.name != CONVERTED):
        files = sorted(file for file in case.glob("*.onnx") if not file.name.startswith(TWINS))
        wanted = files[:1] if group in ("blocks", "exporters") else files[:1] + files[1:][-1:]
        yield from (Fixture(group, case.name, file) for file in wanted)


def inputs_of(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Returns the tensors beside a fixture, by input and in the model's types; noise images if there are none."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in weights]
    return {value.name: tensor(path.parent / f"input_{i}.pb").astype(
        helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)) for i, value in enumerate(given)}


def tensor(path: Path) -> np.ndarray[Any, Any]:
    if not path.exists():
        return noise(TRAINED_INPUT)
    read = TensorProto()
    read.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(read)


def noise(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def write_large(name: str, path: Path) -> None:
    """Writes a network of full size, with seeded weights, by PyTorch's TorchScript exporter and its defaults."""
    sys.path += [str(TOP / "benches"), str(TOP / "fixtures" / "export")]
    import timm
    from architectures import acnet
    from exporters import export
    from fixture import random_inputs, seeded
    from timm_networks import initialise
    rng = seeded(name)
    inputs = random_inputs([LARGE_INPUT], rng)
    module = acnet("resnet18") if name == "resnet18_acnet" else initialise(timm.create_model(name), inputs, rng)
    export(module, inputs, path)


if __name__ == "__main__":
    write_large(sys.argv[1], Path(sys.argv[2]))
