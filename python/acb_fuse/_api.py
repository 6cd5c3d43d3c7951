"""`fuse` and `look`: what is given to Python, as the words of a command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypedDict, TypeVar, Union, overload

from ._report import Report
from ._run import run

if TYPE_CHECKING:
    from typing_extensions import Unpack

_PIPE = "-"


class ModelProto(Protocol):
    """What this package needs of an `onnx.ModelProto`, so that it does not need onnx."""

    @property
    def ir_version(self) -> int: ...
    def SerializeToString(self) -> bytes: ...
    def ParseFromString(self, serialized: bytes) -> Any: ...


StrPath = Union[str, "os.PathLike[str]"]
Proto = TypeVar("Proto", bound=ModelProto)
Model = TypeVar("Model")


@dataclass(frozen=True)
class Fused(Generic[Model]):
    """A fused model, of the type that was given, and what was done."""

    model: Model
    report: Report


class LookOptions(TypedDict, total=False):
    """Options of `look`. What is left out is as on the command line."""

    skip: Iterable[str]
    """Leave the blocks of these names alone."""
    keep_overridable: bool
    """Do not fold weights that are also graph inputs, which a caller could override."""
    growth: float
    """By which fraction of its parameters the model may grow by copies of kernels that convolutions share: by default 0.1."""
    keep_identity: Literal["auto", "always", "never"]
    """Whether identities stay apart from the kernels beside them: "never", the default, "auto" where int8 weights would lose
    more than 6 dB, or "always"."""
    for_: Literal["int8"]
    """What the new model is for: "int8" is the same as `keep_identity="auto", equalize=True`."""
    training_mode: Literal["auto", "convert", "keep"]
    """Which nodes in training mode become their inference form: "auto", the default, "convert" or "keep"."""
    follow_links: bool
    """Read weights also from side files that are links out of the model's folder, as in caches."""
    require_fusion: bool
    """Raise `NothingFused` if there is nothing to fuse."""
    input_shapes: Mapping[str, Sequence[int]]
    """Fix the shapes of these graph inputs: the result is right for them only."""
    timeout: float | None
    """Seconds after which the process is ended, with `TimedOut`; None, the default, is never."""


class FuseOptions(LookOptions, total=False):
    """Options of `fuse`. What is left out is as on the command line."""

    equalize: bool | Literal["best", "exact"]
    """Multiply channels by factors with which 8 bits say more, if a run on 8 bits gains 0.5 dB or more; "exact": by powers of
    two, so that the float model is the same bit for bit."""
    inputs: Mapping[str, StrPath]
    """A file per graph input (.npy, .npz or .pb) to run the models on, and to find the factors of `equalize` with."""
    verify: bool
    """Prove every block and run the models: the default."""
    require_run: bool
    """Raise `NotRun` if the whole model cannot be run."""
    samples: int
    """How many random inputs the whole models are run on: by default 1."""
    seed: int
    """Seed of the random inputs: by default 0."""
    tolerance: float | None
    """Allowed difference of an output, relative to its largest value; None, the default, depends on its type."""
    verify_timeout: int
    """Seconds that verification may take; what is not run by then is reported as not run."""
    verify_memory: int
    """Memory that the tensors of a run may take, in GiB; what needs more is not run."""
    clobber: bool
    """Replace an existing output, if it has the inputs and outputs of `model`: the default."""
    force: bool
    """Replace an existing output whatever it holds."""


@overload
def fuse(model: StrPath | bytes | ModelProto, output: StrPath, **options: Unpack[FuseOptions]) -> Report: ...
@overload
def fuse(model: Proto, **options: Unpack[FuseOptions]) -> Fused[Proto]: ...
@overload
def fuse(model: bytes, **options: Unpack[FuseOptions]) -> Fused[bytes]: ...
def fuse(model: Any, output: StrPath | None = None, **options: Any) -> Any:
    """Fuses the blocks of a model, proves each, and runs the old and the new model.

    `model` is a path, the bytes of a file, or an `onnx.ModelProto`, which is not changed. With `output`, a path, the
    result is written there and the report returned. Without, the result is of the type that was given:

        fuse("in.onnx", "out.onnx") -> Report
        fuse(data) -> Fused[bytes]
        fuse(proto) -> Fused[ModelProto]

    Bytes and ModelProtos carry their weights themselves and have less than 2 GB. A model with side files is given by
    its path, and its result gets a side file beside `output`.

    Options: skip, keep_overridable, growth, keep_identity, for_, training_mode, follow_links, require_fusion, input_shapes,
    timeout, equalize, inputs, verify, require_run, samples, seed, tolerance, verify_timeout, verify_memory, clobber,
    force. `FuseOptions` says what they mean.

    Raises an `Error` if something is wrong; nothing is written then.
    """
    if output is None and _is_path(model):
        raise TypeError("fuse() of a path needs another one for the result; look() only looks")
    place = _PIPE if output is None else _argument(output)
    made, report = _convert("fuse", model, [place], options, FuseOptions)
    return report if output is not None else Fused(_like(model, made), report)


def look(model: StrPath | bytes | ModelProto, **options: Unpack[LookOptions]) -> Report:
    """Says what `fuse` would do to a model, what it would leave alone, and why. Takes what `fuse` takes.

    Options: skip, keep_overridable, growth, keep_identity, for_, training_mode, follow_links, require_fusion, input_shapes,
    timeout. `LookOptions` says what they mean.
    """
    _, report = _convert("look", model, [], dict(options), LookOptions)
    return report


def _convert(caller: str, model: Any, output: list[str], options: dict[str, Any], known: Any) -> tuple[bytes, Report]:
    """Runs the tool on a model of any type; with `output`, what came out, and the report."""
    for name in options.keys() - known.__annotations__.keys():
        raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}")
    timeout = options.pop("timeout", None)
    words = [word for name, value in options.items() for word in _WORDS[name](value)]
    place, data = (_argument(model), None) if _is_path(model) else (_PIPE, _bytes(model))
    return run([*words, "--", place, *output], data, timeout)


# --- types of models --------------------------------------------------------------

def _is_path(model: Any) -> bool:
    return isinstance(model, (str, os.PathLike))


def _argument(path: StrPath) -> str:
    """A path as an argument, for which `-` is not a path."""
    text = os.fspath(path)
    return os.path.join(os.curdir, text) if text == _PIPE else text


def _bytes(model: Any) -> bytes:
    if isinstance(model, bytes):
        return model
    if hasattr(model, "ir_version") and hasattr(model, "SerializeToString"):
        return bytes(model.SerializeToString())
    raise TypeError(f"a model is a path, bytes or an onnx.ModelProto, not {type(model).__name__}")


def _like(model: Any, made: bytes) -> Any:
    """What was made, as the type that was given."""
    if isinstance(model, bytes):
        return made
    proto = type(model)()
    proto.ParseFromString(made)
    return proto


# --- options as words of the command line -------------------------------------------

Words = Callable[[Any], "list[str]"]


def _switch(flag: str, given_if: bool = True) -> Words:
    return lambda wanted: [flag] if bool(wanted) == given_if else []


def _value(flag: str) -> Words:
    return lambda value: [] if value is None else [f"{flag}={value}"]


def _names(flag: str) -> Words:
    return lambda names: [f"{flag}={name}" for name in ([names] if isinstance(names, str) else names)]


def _shapes(flag: str) -> Words:
    return lambda shapes: [f"{flag}={name}={','.join(map(str, shape))}" for name, shape in shapes.items()]


def _equalized(how: object) -> list[str]:
    return ["--equalize"] if how is True else [f"--equalize={how}"] if how else []


def _inputs(files: Mapping[str, StrPath] | None) -> list[str]:
    return [f"--input={name}={os.fspath(file)}" for name, file in (files or {}).items()]


_WORDS: dict[str, Words] = {
    "skip": _names("--skip"),
    "keep_overridable": _switch("--keep-overridable"),
    "growth": _value("--growth"),
    "keep_identity": _value("--keep-identity"),
    "for_": _value("--for"),
    "training_mode": _value("--training-mode"),
    "follow_links": _switch("--follow-links"),
    "require_fusion": _switch("--require-fusion"),
    "input_shapes": _shapes("--input-shape"),
    "equalize": _equalized,
    "inputs": _inputs,
    "verify": _switch("--no-verify", given_if=False),
    "require_run": _switch("--require-run"),
    "samples": _value("--samples"),
    "seed": _value("--seed"),
    "tolerance": _value("--tolerance"),
    "verify_timeout": _value("--verify-timeout"),
    "verify_memory": _value("--verify-memory"),
    "clobber": _switch("--no-clobber", given_if=False),
    "force": _switch("--force"),
}
