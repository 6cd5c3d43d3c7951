"""Folds the training-time convolution blocks of an ONNX model into single convolutions, and proves it.

    import acb_fuse

    report = acb_fuse.fuse("resnet.onnx", "deploy.onnx")    # from file to file
    model, report = acb_fuse.fuse(model)                    # in memory: the type that is given comes out
    report = acb_fuse.look("resnet.onnx")                   # what would be fused, what not and why

Models in memory are bytes, `onnx.ModelProto`, `onnx_ir.Model` and `torch.onnx.ONNXProgram`; `acb_fuse.onnx_ir` and
`acb_fuse.olive` hold passes for the pipelines of these packages. What goes wrong is an `acb_fuse.Error`.
"""

from importlib.metadata import PackageNotFoundError, version

from ._api import Fused, fuse, look
from ._binary import find as find_binary
from ._errors import (
    BinaryNotFound,
    Ended,
    Error,
    ExistingFile,
    FileError,
    ForbiddenFile,
    InvalidModel,
    MissingFile,
    NothingFused,
    NotRun,
    ReadWriteError,
    TimedOut,
    UsageError,
    VerificationFailed,
)
from ._options import FuseOptions, LookOptions
from ._report import (
    Block,
    ConvertedNode,
    Cost,
    DominantBranch,
    Equalization,
    Failure,
    File,
    Geometry,
    InputShape,
    Int8Outputs,
    Int8Weights,
    KeptApart,
    Magnitude,
    NearMiss,
    Notes,
    OpenShape,
    Predecessor,
    Proof,
    Report,
    RequestedOptions,
    RequestedShape,
    Run,
    RunOutput,
    RuntimeRun,
    Seconds,
    Seeds,
    SideFile,
    Size,
    Sizes,
    Spread,
    Tolerances,
    Tool,
    Versions,
    Weights,
)

try:
    __version__ = version("acb-fuse")
except PackageNotFoundError:  # The source alone, which is not installed.
    __version__ = "0+source"

__all__ = [
    "BinaryNotFound",
    "Block",
    "ConvertedNode",
    "Cost",
    "DominantBranch",
    "Ended",
    "Equalization",
    "Error",
    "ExistingFile",
    "Failure",
    "File",
    "FileError",
    "ForbiddenFile",
    "FuseOptions",
    "Fused",
    "Geometry",
    "InputShape",
    "Int8Outputs",
    "Int8Weights",
    "InvalidModel",
    "KeptApart",
    "LookOptions",
    "Magnitude",
    "MissingFile",
    "NearMiss",
    "NotRun",
    "Notes",
    "NothingFused",
    "OpenShape",
    "Predecessor",
    "Proof",
    "ReadWriteError",
    "Report",
    "RequestedOptions",
    "RequestedShape",
    "Run",
    "RunOutput",
    "RuntimeRun",
    "Seconds",
    "Seeds",
    "SideFile",
    "Size",
    "Sizes",
    "Spread",
    "TimedOut",
    "Tolerances",
    "Tool",
    "UsageError",
    "VerificationFailed",
    "Versions",
    "Weights",
    "__version__",
    "find_binary",
    "fuse",
    "look",
]
