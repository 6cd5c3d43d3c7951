"""Code that `mypy --strict` must accept, and errors that it must find: checked by tests/wheel.sh, never executed."""

from __future__ import annotations

from pathlib import Path

import numpy
import onnx
import onnx_ir
from typing_extensions import assert_type

import acb_fuse


def convert(source: Path, data: bytes, proto: onnx.ModelProto, model: onnx_ir.Model) -> None:
    assert_type(acb_fuse.fuse(source, "out.onnx"), acb_fuse.Report)
    assert_type(acb_fuse.fuse(proto, source), acb_fuse.Report)
    assert_type(acb_fuse.fuse(data), acb_fuse.Fused[bytes])
    assert_type(acb_fuse.fuse(bytearray(data)), acb_fuse.Fused[bytearray])
    assert_type(acb_fuse.fuse(proto, verify=False, skip=["stem"]).model, onnx.ModelProto)
    assert_type(acb_fuse.fuse(model, None, verify="onnxruntime").model, onnx_ir.Model)
    assert_type(acb_fuse.look(data, input_shapes={"x": (8, 3, 32, 32)}).blocks, "tuple[acb_fuse.Block, ...]")
    fused, report = acb_fuse.fuse(proto, inputs={"x": numpy.zeros(3), "y": source})
    assert_type(fused, onnx.ModelProto)
    assert_type(report, acb_fuse.Report)


def options(source: Path) -> acb_fuse.Report:
    """Keeps the options of a call in a dictionary."""
    kept: acb_fuse.FuseOptions = {"samples": 2, "verify": None, "equalize": "exact"}
    return acb_fuse.fuse(source, "out.onnx", **kept)


def mistakes(source: Path, data: bytes) -> None:
    acb_fuse.fuse(source)  # type: ignore[call-overload]
    acb_fuse.fuse(data, verfy=False)  # type: ignore[call-overload]
    acb_fuse.fuse(data, samples="2")  # type: ignore[call-overload]
    acb_fuse.look(data, verify=False)  # type: ignore[call-arg]
    acb_fuse.look(data).outcome = "written"  # type: ignore[misc]


def largest_error(source: Path) -> float | None:
    """Reads a report as users do: every optional part has to be checked first."""
    try:
        report = acb_fuse.fuse(source, source.with_suffix(".deploy.onnx"), require_run=True, timeout=60)
    except acb_fuse.VerificationFailed as error:
        return None if error.report is None or error.report.run is None else error.report.run.rounding
    except acb_fuse.Error as error:
        raise SystemExit(error.exit_code if not error.may_retry else 75) from error
    errors = [block.proof.error for block in report.blocks if block.proof is not None]
    return max((error for error in errors if error is not None), default=None)
