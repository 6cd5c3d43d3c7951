"""Models in memory: as the bytes of a file, and back as what they were."""

from __future__ import annotations

import os
import sys
from typing import Any, Protocol, TypeVar, Union


class ModelProto(Protocol):
    """What this package needs of an `onnx.ModelProto`, so that it does not need onnx."""

    @property
    def ir_version(self) -> int: ...
    def SerializeToString(self) -> bytes: ...
    def ParseFromString(self, serialized: bytes) -> Any: ...


class IrModel(Protocol):
    """What tells an `onnx_ir.Model` from other types."""

    @property
    def graph(self) -> Any: ...
    @property
    def opset_imports(self) -> dict[str, int]: ...


class OnnxProgram(Protocol):
    """What tells a `torch.onnx.ONNXProgram` from other types."""

    @property
    def model_proto(self) -> Any: ...
    def apply_weights(self, state_dict: Any) -> None: ...


InMemory = Union[bytes, bytearray, memoryview, ModelProto, IrModel, OnnxProgram]
Model = TypeVar("Model", bound=InMemory)


def is_path(model: object) -> bool:
    """Whether a model is given by its file."""
    return isinstance(model, (str, os.PathLike))


def serialized(model: Any) -> bytes | memoryview:
    """The file that a model in memory would be.

    Raises a `TypeError` if it is no model.
    """
    if isinstance(model, (bytes, bytearray, memoryview)):
        return memoryview(model).cast("B")
    if hasattr(model, "ir_version") and hasattr(model, "SerializeToString"):
        return _of_proto(model)
    if _is_a(model, "onnx_ir", "Model"):
        return _of_ir(model)
    if _is_a(model, "torch.onnx", "ONNXProgram"):
        return _of_ir(model.model)
    raise TypeError(
        "a model is a path, bytes, bytearray, memoryview, onnx.ModelProto, onnx_ir.Model or torch.onnx.ONNXProgram, "
        f"not {type(model).__name__}")


def like(model: Any, made: bytes) -> Any:
    """The file `made` as a model of the type that was given."""
    kind = type(model)
    if isinstance(model, (bytes, bytearray, memoryview)):
        return made if kind is bytes else kind(made)
    if _is_a(model, "onnx_ir", "Model"):
        return _to_ir(made)
    if _is_a(model, "torch.onnx", "ONNXProgram"):
        return kind(_to_ir(made), model.exported_program)
    proto = kind()
    proto.ParseFromString(made)
    return proto


def _is_a(model: object, module: str, name: str) -> bool:
    """Whether it is of this type; who has one has imported the module."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(model, kind)


def _of_proto(model: Any) -> bytes:
    """The bytes of an `onnx.ModelProto`.

    Raises a `ValueError` if it has too many.
    """
    try:
        return bytes(model.SerializeToString())
    except Exception as problem:  # Which class it is depends on how protobuf was built.
        raise ValueError(
            f"the model cannot be serialized ({problem}): if it has 2 GB or more, save it with its weights in a file beside "
            "it, and give its path") from problem


def _of_ir(model: Any) -> bytes:
    """The bytes of an `onnx_ir.Model`, weights that it has in files beside it included."""
    import onnx_ir

    # Tensors are shared with the copy, so that no weight is, and the caller's stay where they are.
    whole = onnx_ir.external_data.load_to_model(model.clone())
    return _of_proto(onnx_ir.to_proto(whole))


def _to_ir(made: bytes) -> Any:
    import onnx
    import onnx_ir

    return onnx_ir.from_proto(onnx.load_model_from_string(made))
