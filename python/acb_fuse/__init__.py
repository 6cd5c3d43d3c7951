"""Folds the training-time convolution blocks of an ONNX model into single convolutions, and proves it.

    import acb_fuse

    report = acb_fuse.fuse("resnet.onnx", "deploy.onnx")    # from file to file
    fused = acb_fuse.fuse(model)                            # bytes or an onnx.ModelProto: the same comes out
    fused.model, fused.report
    report = acb_fuse.look("resnet.onnx")                   # what would be fused, what not and why

What goes wrong is an `acb_fuse.Error`; nothing is written then.
"""

from ._api import Fused, FuseOptions, LookOptions, fuse, look
from ._binary import find as find_binary
from ._errors import (
    BinaryNotFound,
    Ended,
    Error,
    FileError,
    InvalidModel,
    NothingFused,
    NotRun,
    ReadWriteError,
    TimedOut,
    UsageError,
    VerificationFailed,
)
from ._report import (
    Block,
    Cost,
    DominantBranch,
    Failure,
    File,
    Geometry,
    Int8Weights,
    KeptApart,
    Magnitude,
    NearMiss,
    Notes,
    Predecessor,
    Proof,
    Report,
    Run,
    RunOutput,
    Seconds,
    SideFile,
    Size,
    Sizes,
    Spread,
    Tool,
    Weights,
)

__all__ = [
    "BinaryNotFound",
    "Block",
    "Cost",
    "DominantBranch",
    "Ended",
    "Error",
    "Failure",
    "File",
    "FileError",
    "FuseOptions",
    "Fused",
    "Geometry",
    "Int8Weights",
    "InvalidModel",
    "KeptApart",
    "LookOptions",
    "Magnitude",
    "NearMiss",
    "NotRun",
    "Notes",
    "NothingFused",
    "Predecessor",
    "Proof",
    "ReadWriteError",
    "Report",
    "Run",
    "RunOutput",
    "Seconds",
    "SideFile",
    "Size",
    "Sizes",
    "Spread",
    "TimedOut",
    "Tool",
    "UsageError",
    "VerificationFailed",
    "Weights",
    "find_binary",
    "fuse",
    "look",
]
