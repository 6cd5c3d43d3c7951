"""A pass for workflows of Olive (olive-ai).

    import olive.workflows
    from acb_fuse.olive import package_config

    passes = {"fuse": {"type": "AcbFuse", "for_": "int8"}, "quantize": {"type": "OnnxStaticQuantization", ...}}
    olive.workflows.run({..., "passes": passes}, package_config=package_config())
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Union

from olive.hardware import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam

from ._api import fuse
from ._options import FuseOptions

_TYPES: dict[str, Any] = {
    "skip": list[str],
    "growth": float,
    "keep_identity": str,
    "for_": str,
    "training_mode": str,
    "input_shapes": dict[str, list[int]],
    "report_html": str,
    "threads": int,
    "timeout": float,
    "equalize": Union[bool, str],
    "inputs": Union[str, dict[str, str]],
    "verify": Union[bool, str],
    "samples": int,
    "seed": int,
    "tolerance": float,
    "verify_timeout": int,
    "verify_memory": int,
}
"""As a workflow in JSON has the options; the others are switches."""


class AcbFuse(Pass):  # type: ignore[misc,unused-ignore]  # Any, where Olive is not installed
    """Folds the training-time convolution blocks of a model into single convolutions, and proves it.

    Its options are those of `acb_fuse.fuse`.
    """

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            name: PassConfigParam(
                type_=_TYPES.get(name, bool), default_value=None, description=f"`{name}` of acb_fuse.fuse")
            for name in FuseOptions.__annotations__
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str,
    ) -> ONNXModelHandler:
        if not isinstance(model, ONNXModelHandler):
            raise TypeError(f"AcbFuse takes an ONNXModelHandler, not {type(model).__name__}")
        output = Path(resolve_onnx_path(output_model_path, Path(model.model_path).name))
        options: FuseOptions = {name: getattr(config, name) for name in FuseOptions.__annotations__}  # type: ignore[assignment]
        report = fuse(model.model_path, output, **options)
        # A model with weights beside it is known to Olive by its folder.
        beside = report.output is not None and bool(report.output.side_files)
        return ONNXModelHandler(model_path=str(output.parent if beside else output),
                                onnx_file_name=output.name if beside else None)


def package_config() -> dict[str, Any]:
    """Olive's own package configuration, and in it this pass as `AcbFuse`."""
    config: dict[str, Any] = OlivePackageConfig.load_default_config().model_dump()
    config["passes"][AcbFuse.__name__.lower()] = {
        "module_path": f"{AcbFuse.__module__}.{AcbFuse.__name__}",
        "supported_providers": ["*"],
        "supported_accelerators": ["*"],
        "supported_precisions": ["*"],
    }
    return config
