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
    bytes: int


@dataclass(frozen=True)
class Input:
    """The model that was read."""

    path: str
    sha256: str
    bytes: int
    side_files: tuple[SideFile, ...]


@dataclass(frozen=True)
class Output:
    """The model that was written."""

    path: str
    sha256: str
    bytes: int
    side_file: Optional[str]


@dataclass(frozen=True)
class Geometry:
    """A convolution that was made."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, ...], ...]
    """Per spatial axis, in front and behind."""
    groups: int
    inputs: int
    outputs: int
    transposed: bool


@dataclass(frozen=True)
class Cost:
    """What nodes cost; multiply-adds are per position of the output."""

    nodes: int
    parameters: float
    multiply_adds: float


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
    reads: tuple[str, ...]
    output: str
    new_tensors: tuple[str, ...]
    geometry: tuple[Geometry, ...]
    before: Cost
    after: Cost
    proof: Optional[Proof]
    weights: Optional[dict[str, Any]]


@dataclass(frozen=True)
class NearMiss:
    """A place that was left alone, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class RunOutput:
    """How far an output of the new model differs, relative to its largest value."""

    name: str
    error: float


@dataclass(frozen=True)
class Run:
    """The run of the whole models; `reason` says why there was none."""

    outcome: Literal["agreed", "within_rounding", "not_run"]
    outputs: tuple[RunOutput, ...]
    rounding: Optional[float]
    reason: Optional[str]


@dataclass(frozen=True)
class Size:
    """How large a model is."""

    bytes: int
    nodes: int
    parameters: float
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
    input: Input
    output: Optional[Output]
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
