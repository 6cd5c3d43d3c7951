"""What the tool says it did, as `--report FILE.json` writes it: src/report/schema.json, name by name."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

from . import _shown
from ._options import in_python

# The annotations are read when a report is: hence `Optional`, which all versions of Python can evaluate.

Told = Annotated[str, "in which the tool speaks of its flags, and a report of options"]


@dataclass(frozen=True)
class Tool:
    """What wrote the report."""

    name: str
    version: str


@dataclass(frozen=True)
class RequestedShape:
    """The shape that was given for an input that the file leaves open."""

    input: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class RequestedOptions:
    """The choices of the caller, as they were taken."""

    equalize: Optional[Literal["best", "exact"]]
    keep_identity: Literal["auto", "always", "never"]
    keep_overridable: bool
    growth: float
    training_mode: Literal["auto", "convert", "keep"]
    skip: tuple[str, ...]
    input_shapes: tuple[RequestedShape, ...]
    given_inputs: tuple[str, ...]
    """By name or by number."""
    samples: int
    require_run: bool
    require_fusion: bool
    verify_seconds: int
    verify_bytes: int


@dataclass(frozen=True)
class Seeds:
    """What random inputs were made from."""

    proof: int
    run: int


@dataclass(frozen=True)
class Tolerances:
    """By how much old and new may differ, relative to the largest value: in a proof, and in outputs of each type."""

    proof: float
    float64: float
    float32: float
    float16: float


@dataclass(frozen=True)
class Versions:
    """What the model and its verification rest on; what is None could not be read."""

    engine: str
    ir: Optional[int]
    opset: Optional[int]
    newest_opset: int


@dataclass(frozen=True)
class Failure:
    """How the process ended, if not with 0."""

    exit_code: int
    message: Told


@dataclass(frozen=True)
class SideFile:
    """A file beside a model that holds weights; what is None could not be read."""

    location: str
    bytes: Optional[int]
    sha256: Optional[str]


@dataclass(frozen=True)
class Predecessor:
    """What stood where the new model is now."""

    kind: Literal["input", "earlier", "other"]
    side_files: tuple[str, ...]
    """Those that neither the new model needs nor the one that was read."""


@dataclass(frozen=True)
class File:
    """A model file; what is None could not be read."""

    path: str
    bytes: Optional[int]
    sha256: Optional[str]
    side_files: tuple[SideFile, ...]
    replaced: Optional[Predecessor]
    """What an output has taken the place of."""


@dataclass(frozen=True)
class Geometry:
    """The shape of a convolution that was made; every tuple has one entry per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, ...], ...]
    """At the beginning and at the end; negative where the input is cropped."""
    borders: tuple[str, ...]
    """What is added there: zero, reflect, edge or wrap."""
    groups: int
    inputs: int
    outputs: int
    transposed: bool


@dataclass(frozen=True)
class Cost:
    """What the nodes of a block cost."""

    nodes: int
    parameters: int
    multiply_adds_per_position: float


@dataclass(frozen=True)
class Proof:
    """How far the old and the new nodes differ in float64, relative to the largest value on the way."""

    error: Optional[float]


@dataclass(frozen=True)
class Spread:
    """How the largest |w| per output channel is spread; `ratio` is largest / median."""

    smallest: Optional[float]
    lower_quartile: Optional[float]
    median: Optional[float]
    upper_quartile: Optional[float]
    largest: Optional[float]
    ratio: Optional[float]


@dataclass(frozen=True)
class Int8Weights:
    """What rounding to symmetric int8 does to weights: signal-to-noise ratios in dB, with one step for the whole tensor or
    one per output channel; None if rounding changes nothing. `crest_factor` is the largest |w| by the root of the mean square."""

    sqnr_per_tensor: Optional[float]
    sqnr_per_channel: Optional[float]
    crest_factor: Optional[float]


@dataclass(frozen=True)
class DominantBranch:
    """The branch that holds the largest weight in so many of all filters; its `kernel` is None if it is the identity."""

    kernel: Optional[tuple[int, ...]]
    filters: int
    all: int


@dataclass(frozen=True)
class KeptApart:
    """A branch that stays apart from a convolution, and the convolution's int8 signal-to-noise ratio with and without it."""

    kernel: Optional[tuple[int, ...]]
    sqnr_merged: Optional[float]
    sqnr_apart: Optional[float]


@dataclass(frozen=True)
class Magnitude:
    """How large the weights of a kernel are, at each tap (the last axis fastest) and per channel."""

    kernel: tuple[int, ...]
    by_position: tuple[Optional[float], ...]
    channels: Spread
    int8: Int8Weights


@dataclass(frozen=True)
class Weights:
    """A fused kernel beside the largest of its branches: as it is stored, and with its norms folded."""

    stored: Spread
    before: Magnitude
    after: Magnitude
    dominant: Optional[DominantBranch]
    """If the int8 weights of `after` are poor and it has several branches."""


@dataclass(frozen=True)
class Block:
    """A block that was, or would be, fused."""

    name: str
    """What `skip` takes."""
    branches: str
    norms: int
    removed_nodes: tuple[str, ...]
    new_nodes: tuple[str, ...]
    new_tensors: tuple[str, ...]
    reads: tuple[str, ...]
    output: str
    geometry: tuple[Geometry, ...]
    """The convolutions that it becomes."""
    positions: Optional[float]
    """Of its output; None if a size is not known."""
    conditions: tuple[str, ...]
    """What has to hold for it to be right, and the file does not promise by itself."""
    before: Cost
    after: Cost
    proof: Optional[Proof]
    weights: Optional[tuple[Weights, ...]]
    """One per convolution; None if nothing was made."""
    kept_apart: tuple[KeptApart, ...]
    """Branches that stay apart from the convolutions."""
    hint: Optional[Told]
    """What to do before quantization, if int8 weights are poor."""


@dataclass(frozen=True)
class NearMiss:
    """A place that was left alone, and why: in a word for programs, and in a sentence; and what helps."""

    node: str
    kind: str
    reason: Told
    help: Told


@dataclass(frozen=True)
class RunOutput:
    """How far an output of the new model differs, relative to its largest value; None is infinitely far."""

    name: str
    error: Optional[float]


@dataclass(frozen=True)
class InputShape:
    """The shape that an input had in a run."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """The run of both whole models, or the reason why there was none."""

    outcome: Literal["agreed", "within_rounding", "not_run", "differs", "broken"]
    outputs: tuple[RunOutput, ...]
    shapes: tuple[tuple[InputShape, ...], ...]
    flat: tuple[str, ...]
    flipped: float
    widened: bool
    rounding: Optional[float]
    reason: Optional[Told]


@dataclass(frozen=True)
class Int8Outputs:
    """Signal and noise in dB of all outputs of the new model, its kernels rounded to int8 with one step each or one per
    output channel, and its tensors as they are."""

    per_tensor: float
    per_channel: float
    given: bool
    """Whether all inputs were given; else they were random."""


@dataclass(frozen=True)
class Equalization:
    """Factors of channels, by which the next kernels are divided: what they gain on 8 bits."""

    applied: bool
    reason: Optional[Told]
    """Why the new model has none; None if it has."""
    exact: bool
    """Whether only powers of two are taken."""
    given: bool
    """Whether all inputs were given; else the gain is not known."""
    left_out: int
    """How many of the given inputs were not looked at, since runs on them take too long."""
    kernels: int
    free_kernels: int
    """Kernels that read or make a channel with a factor."""
    channels: int
    """Factors that are free."""
    pinned: dict[str, int]
    """Why tensors have no factor, and how many for that reason."""
    before: Optional[float]
    """Signal and noise in dB of the outputs with weights and tensors on 8 bits; None if that was not run."""
    after: Optional[float]
    """The same with the factors."""
    tensors: int
    """Tensors that changed."""
    factors: Optional[tuple[float, ...]]
    """The least and the largest."""
    proof: Optional[float]
    """The largest difference in the proofs of the changed nodes."""
    run: Optional[Run]
    """The run of the model without and with the factors."""
    seconds: float


@dataclass(frozen=True)
class RuntimeRun:
    """The run of both whole models in an installed ONNX Runtime."""

    version: str
    shapes: tuple[tuple[InputShape, ...], ...]
    """Of the inputs, per run."""
    outputs: tuple[RunOutput, ...]


@dataclass(frozen=True)
class Size:
    """How large a model is, its side files included; what is None is not known."""

    bytes: Optional[int]
    nodes: Optional[int]
    parameters: Optional[int]
    multiply_adds: Optional[float]


@dataclass(frozen=True)
class Sizes:
    """The model as it was read, and as it was, or would be, written."""

    before: Size
    after: Size


@dataclass(frozen=True)
class OperatorChange:
    """How many nodes of an operator there are; its name is behind that of its domain, if that is not ONNX's own."""

    operator: str
    before: int
    after: int


@dataclass(frozen=True)
class ConvertedNode:
    """A node in training mode that became, or went into, its inference form."""

    node: str
    operator: str


@dataclass(frozen=True)
class OpenShape:
    """A shape for an input that the file leaves open."""

    input: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Notes:
    """What else a user should know."""

    newer_opset: Optional[int]
    inferred_nodes: int
    """How many nodes in training mode became their inference form."""
    converted_nodes: tuple[ConvertedNode, ...]
    """These nodes: before, the model computed something else."""
    removed_inputs: int
    open_sizes: tuple[OpenShape, ...]
    """Shapes at which the model runs, if sizes that are known may help."""
    repeated_names: tuple[str, ...]
    """Names that several nodes of one graph have: ONNX Runtime refuses such a model."""
    unsynced: Optional[str]
    """Why it is not known that the names of the new files have reached the disk."""


@dataclass(frozen=True)
class Seconds:
    """Where the time went."""

    read: float
    plan: float
    fuse_and_prove: float
    write: float
    read_back: float
    run: float
    equalize: float
    int8: float
    total: float


@dataclass(frozen=True, repr=False)
class Report:
    """What was, or would be, done to one model. What newer versions say beyond that is in `json` only."""

    schema: int
    tool: Tool
    outcome: Literal["looked", "written", "failed"]
    error: Optional[Failure]
    mode: Literal["look", "verified", "unverified"]
    options: RequestedOptions
    seeds: Seeds
    tolerances: Tolerances
    versions: Versions
    input: File
    output: Optional[File]
    blocks: tuple[Block, ...]
    near_misses: tuple[NearMiss, ...]
    run: Optional[Run]
    verdict: Optional[str]
    """What verification showed, in a few words; None if nothing was to be verified, or the conversion did not come so far."""
    int8_outputs: Optional[Int8Outputs]
    """What int8 weights leave of the outputs; None if that was not asked for, or nothing tells."""
    equalization: Optional[Equalization]
    """What became of the factors of channels; None if they were not asked for."""
    sizes: Sizes
    operators: tuple[OperatorChange, ...]
    """Of a new model, the operators of which there are more or fewer nodes than before; those that changed most first."""
    notes: Notes
    seconds: Seconds
    json: dict[str, Any] = field(repr=False, compare=False)
    """The report as the tool wrote it, in which messages name its flags."""
    onnxruntime: Optional[RuntimeRun] = None
    """The run that `verify="onnxruntime"` adds to `run`; None if nothing changed, or that was not asked for."""

    @property
    def changed(self) -> bool:
        """Whether the new model is another than the one that was read."""
        return self.output is not None and self.output.sha256 != self.input.sha256

    def __repr__(self) -> str:
        return f"<{_shown.line(self)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return _shown.page(self)

    @classmethod
    def parse(cls, json: dict[str, Any]) -> Report:
        """Reads a report that was parsed as JSON, or is the `json` of another one.

        Raises a `ValueError` if something is missing.
        """
        try:
            report: Report = _read(cls, {"onnxruntime": None, **json, "json": json})
        except (KeyError, TypeError) as problem:
            raise ValueError(f"this is no report of acb-fuse, or of a version that is too old: {problem}") from problem
        return report


def _read(kind: Any, value: Any) -> Any:
    """What JSON has as `value`, as a value of the type `kind`; keys that `kind` does not know are dropped."""
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = get_type_hints(kind, include_extras=True)
        return kind(**{each.name: _read(kinds[each.name], value[each.name]) for each in fields(kind)})
    if get_origin(kind) is tuple:
        return tuple(_read(get_args(kind)[0], each) for each in value)
    if get_origin(kind) is Union and value is not None:
        return _read(get_args(kind)[0], value)
    return in_python(value) if kind is Told else value
