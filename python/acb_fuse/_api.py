"""`fuse` and `look`: what is given to Python, as files and flags of the tool."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from . import _onnxruntime, _shown
from ._errors import VerificationFailed
from ._models import InMemory, Model, is_path, like, serialized
from ._options import FuseOptions, Inputs, LookOptions, Progress, StrPath, given
from ._report import Report
from ._run import run

if TYPE_CHECKING:
    from typing_extensions import Unpack

_PIPE = "-"
# Options that say what becomes of the new file, or are written beside it.
_OF_PLACE = ("clobber", "force", "report_html")


class Fused(tuple[Model, Report], Generic[Model]):
    """A fused model, of the type that was given, and what was done: `model, report = fuse(...)`."""

    __slots__ = ()

    def __new__(cls, model: Model, report: Report) -> Fused[Model]:
        return super().__new__(cls, (model, report))

    def __getnewargs__(self) -> tuple[Model, Report]:
        return self.model, self.report

    @property
    def model(self) -> Model:
        """The new model, of the type that was given."""
        return self[0]

    @property
    def report(self) -> Report:
        """What was done."""
        return self[1]

    def __repr__(self) -> str:
        return f"<Fused {type(self.model).__name__}: {_shown.line(self.report).partition(': ')[2]}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.report._repr_html_()


@overload
def fuse(model: StrPath | InMemory, output: StrPath, **options: Unpack[FuseOptions]) -> Report: ...
@overload
def fuse(model: Model, output: None = None, **options: Unpack[FuseOptions]) -> Fused[Model]: ...
def fuse(
    model: StrPath | InMemory,
    output: StrPath | None = None,
    *,
    skip: Iterable[str] | None = None,
    keep_overridable: bool | None = None,
    growth: float | None = None,
    keep_identity: Literal["auto", "always", "never"] | None = None,
    for_: Literal["int8"] | None = None,
    equalize: bool | Literal["best", "exact"] | None = None,
    training_mode: Literal["auto", "convert", "keep"] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    require_fusion: bool | None = None,
    inputs: Inputs | None = None,
    verify: bool | Literal["onnxruntime"] | None = None,
    require_run: bool | None = None,
    samples: int | None = None,
    seed: int | None = None,
    tolerance: float | None = None,
    verify_timeout: int | None = None,
    verify_memory: int | None = None,
    timeout: float | None = None,
    threads: int | None = None,
    follow_links: bool | None = None,
    clobber: bool | None = None,
    force: bool | None = None,
    report_html: StrPath | None = None,
    progress: Progress | None = None,
) -> Report | Fused[Any]:
    """Fuses the blocks of a model, proves each, and runs the old and the new model.

        report = fuse("in.onnx", "out.onnx")        # from file to file
        model, report = fuse(model)                 # in memory

    Parameters
    ----------
    model : path, bytes, bytearray, memoryview, onnx.ModelProto, onnx_ir.Model or torch.onnx.ONNXProgram
        The model. What is given is not changed. A model in memory has to be smaller than 2 GB; give a larger one, or one
        with weights in side files, by its path.
    output : path, optional
        Where the new model goes, with a file of weights beside it if `model` has one.

    Returns
    -------
    Report or Fused
        With `output`, the report of what was done. Without it, the new model, of the type that was given, and the report.

    Raises
    ------
    Error
        Nothing is written then. See `acb_fuse.Error` and its subclasses, some of which are also an `OSError`, a `ValueError`
        or a `TimeoutError`.

    Other Parameters
    ----------------
    All of these are optional, and None means that an option was not given.

    skip : names
        Leave the blocks of these names alone.
    keep_overridable : bool
        Do not fold weights that are also graph inputs, which a caller could override.
    growth : float, default 0.1
        By which fraction of its parameters the model may grow, where convolutions that share a kernel would each need
        a copy of it.
    keep_identity : "never", "auto" or "always", default "never"
        Whether identities stay apart from the kernels beside them. "auto": a branch stays apart if merging it would cost
        the kernel's int8 weights more than 6 dB.
    for_ : "int8"
        What the model is for. The same as `keep_identity="auto", equalize=True`.
    equalize : bool, "best" or "exact"
        Multiply channels by factors that make better use of 8 bits, if a run on 8 bits gains 0.5 dB or more. "exact": only
        by powers of two, so that the float model is the same bit for bit.
    training_mode : "auto", "convert" or "keep", default "auto"
        Which nodes in training mode are converted to their inference form.
    input_shapes : {name: shape}
        Fix the shapes of these graph inputs. The new model is right for these shapes only.
    require_fusion : bool
        Raise `NothingFused` if there is nothing to fuse.
    inputs : {name: array or path}, or path
        What the models are run on, and what the factors of `equalize` are found with: arrays (or anything that NumPy turns
        into arrays), .npy and .pb files, an .npz archive of all, or a folder of ONNX's test data. By default, random
        numbers.
    verify : bool or "onnxruntime", default True
        Prove every block, and run both models. "onnxruntime": also run both in the ONNX Runtime that is installed, and raise
        `NotRun` if that cannot be done. With `output`, the model is then converted twice.
    require_run : bool
        Raise `NotRun` if the whole model cannot be run.
    samples : int, default 1
        How many random inputs the models are run on.
    seed : int, default 0
        Seed of the random inputs.
    tolerance : float
        Allowed difference of an output, relative to its largest value. By default 1e-4 for float32, 2e-2 for float16 and
        1e-9 for float64.
    verify_timeout : int, default 900
        Seconds that verification may take. If the run of the whole model takes longer, it is reported as not run.
    verify_memory : int, default 8
        GiB that the tensors of a run may take. A model that needs more is reported as not run.
    timeout : float
        Stop after so many seconds, with `TimedOut`.
    threads : int
        How many processors are used. By default, all.
    follow_links : bool
        Also read weights from side files that are links to files outside the model's folder, as download caches have them.
    clobber : bool, default True
        Replace an existing output, if it has the same inputs and outputs as `model`.
    force : bool
        Replace an existing output, whatever it holds.
    report_html : path
        Write a page about the conversion to this path, which ends with .html.
    progress : callable
        Called from a thread whenever a stage begins or a block has been proved, with the name of the stage ("reading",
        "planning", "proving", "running", "equalizing" or "writing"), how many blocks have been proved, and of how many.
        Both numbers are None in all stages but "proving".
    """
    options = given(locals(), FuseOptions)
    runs_again = options.get("verify") == "onnxruntime" and bool(_onnxruntime.installed())
    if output is None:
        if is_path(model):
            raise TypeError("fuse() of a path needs a second path, for the new model; look() writes nothing")
        data = serialized(model)
        made, report = run([_PIPE, _PIPE], options, data)
        if runs_again:
            report = _run_again(bytes(data), made, options, report)
        return Fused(like(model, made), report)
    place, stdin = _source(model)
    tried = _tried(place, stdin, options) if runs_again else None
    _, report = run([place, _argument(output)], options, stdin)
    return report if tried is None else _as_tried(report, tried)


def look(
    model: StrPath | InMemory,
    *,
    skip: Iterable[str] | None = None,
    keep_overridable: bool | None = None,
    growth: float | None = None,
    keep_identity: Literal["auto", "always", "never"] | None = None,
    for_: Literal["int8"] | None = None,
    training_mode: Literal["auto", "convert", "keep"] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    require_fusion: bool | None = None,
    timeout: float | None = None,
    threads: int | None = None,
    follow_links: bool | None = None,
    report_html: StrPath | None = None,
    progress: Progress | None = None,
) -> Report:
    """Says what `fuse` would do to a model, what it would leave alone, and why.

    Takes the models and options of `fuse`, but for those of verification and of the output:

        for miss in look("in.onnx").near_misses:
            print(miss.node, miss.reason)
    """
    options = given(locals(), LookOptions)
    place, stdin = _source(model)
    _, report = run([place], options, stdin)
    return report


def _source(model: Any) -> tuple[str, bytes | memoryview | None]:
    """A model as an argument, and what goes to standard input."""
    return (_argument(model), None) if is_path(model) else (_PIPE, serialized(model))


def _argument(path: StrPath) -> str:
    """A path as an argument, for which `-` is not a path."""
    text = os.fsdecode(path)
    return os.path.join(os.curdir, text) if text == _PIPE else text


# --- the run in ONNX Runtime ------------------------------------------------------------

def _run_again(before: str | bytes, after: str | bytes, options: Mapping[str, Any], report: Report) -> Report:
    """The report with that run, if anything changed."""
    if not report.changed:
        return report
    return replace(report, onnxruntime=_onnxruntime.compare(before, after, options, report))


def _tried(place: str, stdin: bytes | memoryview | None, options: Mapping[str, Any]) -> Report:
    """What comes of a conversion whose result is run and goes: nothing is at its place before it was run."""
    with TemporaryDirectory(prefix="acb-fuse-") as folder:
        trial = str(Path(folder, "model.onnx"))
        kept = {name: value for name, value in options.items() if name not in _OF_PLACE}
        _, report = run([place, trial], kept, stdin)
        return _run_again(place if stdin is None else bytes(stdin), trial, options, report)


def _as_tried(report: Report, tried: Report) -> Report:
    """The report of what was written, which is what was tried: the same input makes the same model, but for the
    names of its side files."""
    if report.input != tried.input:
        raise VerificationFailed(
            f"{report.input.path} changed between its run in ONNX Runtime and its conversion: "
            "the result was verified by tract alone", None, report)
    return replace(report, onnxruntime=tried.onnxruntime)
