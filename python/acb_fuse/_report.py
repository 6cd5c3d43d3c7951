"""What the tool says it did, as `--report` writes it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

SCHEMA = 1

# The annotations are read when a report is: hence `Optional`, which all versions of Python can evaluate.


@dataclass(frozen=True)
class Tool:
    """What wrote the report."""

    name: str
    version: str


@dataclass(frozen=True)
class Failure:
    """Why nothing was written."""

    exit_code: int
    message: str


@dataclass(frozen=True)
class SideFile:
    """A file of weights beside a model."""

    location: str
    bytes: Optional[int]
    sha256: Optional[str]


@dataclass(frozen=True)
class File:
    """A model file; what is None could not be read."""

    path: str
    bytes: Optional[int]
    sha256: Optional[str]
    side_files: tuple[SideFile, ...]
    """Those that the model names; of the output, the one that was made for it."""


@dataclass(frozen=True)
class Geometry:
    """The shape of a convolution that was made; every tuple has one entry per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, ...], ...]
    """At the beginning and at the end; below 0 if it is cropped."""
    borders: tuple[str, ...]
    """What is added there: zero, reflect, edge, wrap."""
    groups: int
    inputs: int
    outputs: int
    transposed: bool


@dataclass(frozen=True)
class Cost:
    """What the nodes of a block cost; multiply-adds are per position of its output."""

    nodes: int
    parameters: int
    multiply_adds_per_position: float


@dataclass(frozen=True)
class Proof:
    """How far the old and the new nodes differ in float64, relative to the largest value."""

    error: float


@dataclass(frozen=True)
class Block:
    """A block that was, or would be, fused."""

    name: str
    branches: str
    norms: int
    removed_nodes: tuple[str, ...]
    new_nodes: tuple[str, ...]
    new_tensors: tuple[str, ...]
    reads: tuple[str, ...]
    output: str
    geometry: tuple[Geometry, ...]
    positions: Optional[float]
    """Of its output, over all images; None if that is not known."""
    before: Cost
    after: Cost
    proof: Optional[Proof]
    weights: Optional[tuple[dict[str, Any], ...]]
    """How large the weights are, one entry per convolution, as in `Report.json`."""
    hint: Optional[str]
    """What to do before quantization, if that became harder."""


@dataclass(frozen=True)
class NearMiss:
    """A place that was left alone, and why: in a word for programs, and in a sentence."""

    node: str
    kind: str
    reason: str


@dataclass(frozen=True)
class RunOutput:
    """How far an output of the new model differs, relative to its largest value."""

    name: str
    error: float


@dataclass(frozen=True)
class Run:
    """The run of the whole models; `reason` says why there was none, or only one."""

    outcome: Literal["agreed", "within_rounding", "differs", "broken", "not_run"]
    outputs: tuple[RunOutput, ...]
    rounding: Optional[float]
    reason: Optional[str]


@dataclass(frozen=True)
class Size:
    """How large a model is, its side files included; what is None is not known."""

    bytes: Optional[int]
    nodes: Optional[int]
    parameters: Optional[int]
    multiply_adds: Optional[float]


@dataclass(frozen=True)
class Sizes:
    """The old and the new model."""

    before: Size
    after: Size


@dataclass(frozen=True)
class Notes:
    """What else a user should know."""

    newer_opset: Optional[int]
    fixed_shapes: tuple[str, ...]
    inferred_nodes: int
    removed_inputs: int


@dataclass(frozen=True)
class Seconds:
    """Where the time went."""

    read: float
    plan: float
    fuse_and_prove: float
    write: float
    read_back: float
    run: float
    total: float


@dataclass(frozen=True)
class Report:
    """What was, or would be, done to one model; keys of newer versions are in `json` only."""

    schema: int
    tool: Tool
    outcome: Literal["looked", "written", "failed"]
    error: Optional[Failure]
    mode: Literal["look", "verified", "unverified"]
    input: File
    output: Optional[File]
    blocks: tuple[Block, ...]
    near_misses: tuple[NearMiss, ...]
    run: Optional[Run]
    sizes: Sizes
    notes: Notes
    seconds: Seconds
    json: dict[str, Any] = field(repr=False, compare=False)
    """The report as the tool wrote it."""

    @classmethod
    def parse(cls, json: dict[str, Any]) -> Report:
        """Reads a report that was parsed as JSON, or is the `json` of another one.

        Raises a `ValueError` if it is not what this version reads.
        """
        if json.get("schema") != SCHEMA:
            raise ValueError(f"a report of schema {SCHEMA} was expected, not of {json.get('schema')}")
        try:
            report: Report = _read(cls, {**json, "json": json})
        except (KeyError, TypeError) as problem:
            raise ValueError(f"the report is not whole: {problem}") from problem
        return report


def _read(kind: Any, value: Any) -> Any:
    """What JSON has as `value`, as a value of the type `kind`; keys that `kind` does not know are dropped."""
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = get_type_hints(kind)
        return kind(**{each.name: _read(kinds[each.name], value[each.name]) for each in fields(kind)})
    if get_origin(kind) is tuple:
        return tuple(_read(get_args(kind)[0], each) for each in value)
    if get_origin(kind) is Union and value is not None:
        return _read(get_args(kind)[0], value)
    return value
