"""Runs the old and the new model in an installed ONNX Runtime, and compares their outputs.

This comes after the proof and the run that the tool makes with tract, and never in their place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Union

from ._errors import Error, NotRun, VerificationFailed
from ._options import Inputs
from ._report import InputShape, Report, RunOutput, RuntimeRun

Source = Union[str, bytes]
"""A model: its path, or its bytes."""
Arrays = dict[str, Any]

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(bool)": "bool",
          **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}}
# As the tool has it; outputs of other types are to be equal.
_TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2}
# What is an index or a mask stays in any range.
_INTEGERS = 2
_ERRORS_ONLY = 3


def installed() -> Any:
    """The package, if there is one: asked before the work begins."""
    try:
        return import_module("onnxruntime")
    except ImportError as missing:
        raise ImportError('verify="onnxruntime" needs ONNX Runtime: pip install onnxruntime') from missing


def compare(before: Source, after: Source, options: Mapping[str, Any], report: Report) -> RuntimeRun:
    """Runs both models on `inputs`, or at the shapes at which they were run before, and compares all outputs.

    Raises `NotRun` if the old model does not run or nothing is compared, and `VerificationFailed` if the new one does not
    run or an output differs.
    """
    import numpy

    version = installed().__version__
    with _told(NotRun, f"ONNX Runtime {version} does not load the original", report):
        old = _session(before, options)
    with _told(VerificationFailed, f"ONNX Runtime {version} loads the original and not the result", report):
        new = _session(after, options)
    errors: dict[str, float] = {}
    shapes = []
    for fed in _feeds(old, options, report):
        shapes.append(tuple(InputShape(name, array.shape) for name, array in fed.items()))
        with _told(NotRun, f"ONNX Runtime {version} does not run the original", report):
            outputs = _run(old, fed)
        with _told(VerificationFailed, f"ONNX Runtime {version} runs the original and not the result", report):
            results = _run(new, fed)
        for name, expected in outputs.items():
            if not isinstance(expected, numpy.ndarray):
                raise NotRun(f"output `{name}` is no tensor, and is not compared; nothing was written", None, report)
            error = _error(expected, results.get(name))
            allowed = options.get("tolerance", _TOLERANCES.get(expected.dtype.name, 0.0))
            if not error <= allowed:
                raise VerificationFailed(
                    f"output `{name}` differs in ONNX Runtime {version} by {error:.1e} of its largest value "
                    f"(allowed: {allowed:.0e}); nothing was written", None, report)
            errors[name] = max(error, errors.get(name, 0.0))
    if not errors:
        raise NotRun("the model has no outputs to compare; nothing was written", None, report)
    return RuntimeRun(version, tuple(shapes), tuple(RunOutput(name, error) for name, error in errors.items()))


@contextmanager
def _told(kind: type[Error], what: str, report: Report) -> Iterator[None]:
    """An exception of ONNX Runtime, which has one per status and no class that all are of, as one of this package."""
    try:
        yield
    except Exception as cause:
        raise kind(f"{what}; nothing was written: {cause}", None, report) from cause


def _session(model: Source, options: Mapping[str, Any]) -> Any:
    """A model as ONNX Runtime would run it for a user, its own optimizations included."""
    runtime = installed()
    settings = runtime.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    settings.intra_op_num_threads = options.get("threads", 0)
    return runtime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def _run(session: Any, fed: Arrays) -> Arrays:
    """The outputs by name; what the session has no input for is left out."""
    names = [each.name for each in session.get_outputs()]
    read = {each.name for each in session.get_inputs()}
    return dict(zip(names, session.run(names, {name: array for name, array in fed.items() if name in read})))


# --- what the models are run on -----------------------------------------------------

def _feeds(session: Any, options: Mapping[str, Any], report: Report) -> Iterator[Arrays]:
    """The inputs of each run.

    Raises `NotRun` if one can be given nothing.
    """
    import numpy

    random = numpy.random.default_rng(options.get("seed", 0))
    given = _given(options["inputs"]) if "inputs" in options else {}
    for shapes in _shapes(report, options):
        fed = {}
        for number, each in enumerate(session.get_inputs()):
            fed[each.name] = _input(each, number, given, shapes, random)
            if fed[each.name] is None:
                raise NotRun(
                    f"ONNX Runtime can be given nothing for input `{each.name}`, a {each.type} of shape {each.shape}; "
                    "nothing was written: inputs= and input_shapes= say what to run on", None, report)
        yield fed


def _shapes(report: Report, options: Mapping[str, Any]) -> Iterator[dict[str, tuple[int, ...]]]:
    """The shapes that are known of inputs, for each run: those at which tract has run."""
    own = {name: tuple(shape) for name, shape in options.get("input_shapes", {}).items()}
    runs = report.run.shapes if report.run is not None and report.run.shapes else ((),)
    for run in runs:
        for _ in range(options.get("samples", 1)):
            yield {**{each.name: each.shape for each in run}, **own}


def _input(wanted: Any, number: int, given: Arrays, shapes: Mapping[str, tuple[int, ...]], random: Any) -> Any:
    """The array that was given for an input; else a random one, if type and shape are known."""
    kind = _TYPES.get(wanted.type)
    array = given.get(wanted.name, given.get(str(number)))
    if array is not None:
        return array.astype(kind) if kind is not None else array
    shape = shapes.get(wanted.name, wanted.shape)
    if kind is None or not all(isinstance(size, int) for size in shape):
        return None
    if kind.startswith("float"):
        return random.standard_normal(shape).astype(kind)
    return random.integers(0, _INTEGERS, shape).astype(kind)


def _given(inputs: Inputs) -> Arrays:
    """All arrays of `inputs`: by the names of inputs or, from a folder of ONNX's test data, by their numbers."""
    import numpy

    if isinstance(inputs, Mapping):
        return {name: _array(value) if isinstance(value, (str, os.PathLike)) else numpy.asarray(value)
                for name, value in inputs.items()}
    whole = Path(inputs)
    if whole.is_dir():
        return dict(_numbered(whole))
    return dict(numpy.load(whole))


def _numbered(folder: Path) -> Iterator[tuple[str, Any]]:
    for number in count():
        file = folder / f"input_{number}.pb"
        if not file.exists():
            return
        yield str(number), _array(file)


def _array(file: Any) -> Any:
    import numpy

    if Path(file).suffix != ".pb":
        return numpy.load(file)
    import onnx

    return onnx.numpy_helper.to_array(onnx.load_tensor(file))


# --- how far outputs differ -----------------------------------------------------------

def _error(expected: Any, result: Any) -> float:
    """The largest difference, relative to the largest value; infinite where one alone is finite, or shapes differ."""
    import numpy

    if result is None or expected.shape != result.shape or expected.dtype != result.dtype:
        return float("inf")
    if expected.dtype.kind not in "fiub":
        return 0.0 if numpy.array_equal(expected, result) else float("inf")
    old, new = expected.astype("float64"), result.astype("float64")
    finite = numpy.isfinite(old)
    if not numpy.array_equal(old[~finite], new[~finite], equal_nan=True) or not numpy.isfinite(new[finite]).all():
        return float("inf")
    difference = float(numpy.abs(old - new)[finite].max(initial=0.0))
    largest = float(numpy.abs(old[finite]).max(initial=0.0))
    return difference / largest if largest > 0 else (0.0 if difference == 0 else float("inf"))
