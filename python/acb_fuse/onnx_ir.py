"""A pass for pipelines of onnx_ir and onnxscript.

    import onnx_ir
    from acb_fuse.onnx_ir import FuseBlocksPass

    passes = onnx_ir.passes.Sequential(FuseBlocksPass(), ...)
    model = passes(model).model
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir
from onnx_ir.passes import FunctionalPass, PassResult

from ._api import fuse
from ._options import FuseOptions
from ._report import Report

if TYPE_CHECKING:
    from typing_extensions import Unpack


class FuseBlocksPass(FunctionalPass):
    """Fuses and proves the blocks of a model; the options are those of `acb_fuse.fuse`.

    The model that is given stays as it is. What goes wrong is an `acb_fuse.Error`.
    """

    report: Report | None = None
    """What was done to the last model."""

    def __init__(self, **options: Unpack[FuseOptions]) -> None:
        self.options = options

    def call(self, model: onnx_ir.Model) -> PassResult:
        """The fused model; it counts as modified if it differs."""
        fused, self.report = fuse(model, **self.options)
        return PassResult(fused, modified=self.report.changed)
