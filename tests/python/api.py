"""Tests the Python package over the fixtures, with the tool that is installed with it.

    python tests/python/api.py

Needs nothing but the package; what concerns `onnx.ModelProto` is tested where onnx is installed.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import stat
import subprocess
import sys
import unittest
from dataclasses import is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from unittest import mock

import acb_fuse

try:
    import onnx
except ImportError:
    onnx = None

SOURCE = Path(__file__).resolve().parents[2]
FIXTURES = SOURCE / "fixtures"
ACNET = FIXTURES / "networks/cifar_quick/torchscript_kept_static.onnx"
PLAIN = FIXTURES / "networks/cifar_quick/plain.onnx"
NOT_RUN = FIXTURES / "bad_input/near_misses/nan_weight.onnx"
BESIDE = FIXTURES / "blocks/weights_beside/model.onnx"
BROKEN = FIXTURES / "bad_input/errors/empty.onnx"
BLOCKS = 3


class Test(unittest.TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.output = self.folder / "out.onnx"

    def sha256(self, path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()


class Fusing(Test):
    def test_from_file_to_file(self) -> None:
        report = acb_fuse.fuse(ACNET, str(self.output))
        self.assertEqual((report.outcome, report.mode, report.error), ("written", "verified", None))
        self.assertEqual(report.input.sha256, self.sha256(ACNET))
        self.assertEqual(report.output.sha256, self.sha256(self.output))
        self.assertEqual(report.run.outcome, "agreed")
        self.assertEqual(len(report.blocks), BLOCKS)
        for block in report.blocks:
            self.assertLess(block.proof.error, 1e-12)
            self.assertLess(block.after.nodes, block.before.nodes)
            self.assertTrue(all(len(shape.kernel) == len(shape.pads) == 2 for shape in block.geometry))

    def test_from_bytes_to_bytes(self) -> None:
        fused = acb_fuse.fuse(ACNET.read_bytes())
        acb_fuse.fuse(ACNET, self.output)
        self.assertEqual(fused.model, self.output.read_bytes())
        self.assertEqual(len(fused.report.blocks), BLOCKS)

    def test_from_bytes_to_file(self) -> None:
        report = acb_fuse.fuse(ACNET.read_bytes(), self.output)
        self.assertEqual(report.output.sha256, self.sha256(self.output))

    @unittest.skipIf(onnx is None, "onnx is not installed")
    def test_from_proto_to_proto(self) -> None:
        model = onnx.load(ACNET)
        before = model.SerializeToString()
        fused = acb_fuse.fuse(model)
        self.assertIsInstance(fused.model, onnx.ModelProto)
        self.assertEqual(fused.model, onnx.load_from_string(acb_fuse.fuse(before).model))
        self.assertEqual(model.SerializeToString(), before)

    def test_that_fuses_nothing(self) -> None:
        fused = acb_fuse.fuse(PLAIN.read_bytes())
        self.assertEqual(fused.model, PLAIN.read_bytes())
        self.assertEqual(fused.report.blocks, ())

    def test_weights_beside_the_model(self) -> None:
        report = acb_fuse.fuse(BESIDE, self.output)
        self.assertEqual([side.location for side in report.input.side_files], ["model.onnx.data"])
        self.assertTrue(all((self.folder / side.location).is_file() for side in report.output.side_files))
        with self.assertRaises(acb_fuse.Error):
            acb_fuse.fuse(BESIDE.read_bytes(), require_fusion=True)

    def test_a_path_is_only_a_path(self) -> None:
        for name in ("-", "--quiet", "a b=c.onnx"):
            here = subprocess.run(
                [sys.executable, "-c", "import acb_fuse, sys; acb_fuse.fuse(sys.argv[1], sys.argv[2])", ACNET, name],
                check=False, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True)
            self.assertEqual((here.returncode, here.stdout), (0, b""), here.stderr)
            self.assertTrue((self.folder / name).is_file())

    def test_options(self) -> None:
        report = acb_fuse.fuse(
            ACNET, self.output, verify=True, require_run=True, require_fusion=True, keep_overridable=True,
            training_mode="keep", follow_links=True, clobber=False, samples=2, seed=1, tolerance=1e-3,
            input_shapes={"x": (8, 3, 32, 32)}, verify_timeout=600, verify_memory=4, timeout=600)
        self.assertEqual(report.mode, "verified")
        first = report.blocks[0].name
        report = acb_fuse.fuse(ACNET, self.output, verify=False, skip=[first], tolerance=None, timeout=None)
        self.assertEqual(report.mode, "unverified")
        self.assertNotIn(first, [block.name for block in report.blocks])
        self.assertEqual(len(report.blocks), BLOCKS - 1)

    def test_calls_that_make_no_sense(self) -> None:
        for call in (
            lambda: acb_fuse.fuse(ACNET),
            lambda: acb_fuse.fuse(3),
            lambda: acb_fuse.fuse(ACNET, self.output, verfy=False),
            lambda: acb_fuse.look(ACNET, verify=False),
        ):
            self.assertRaises(TypeError, call)


class Looking(Test):
    def test_at_everything(self) -> None:
        models = [ACNET, str(ACNET), ACNET.read_bytes(), *([onnx.load(ACNET)] if onnx else [])]
        for model in models:
            report = acb_fuse.look(model)
            self.assertEqual((report.outcome, report.mode, report.output), ("looked", "look", None))
            self.assertEqual(len(report.blocks), BLOCKS)

    def test_near_misses(self) -> None:
        report = acb_fuse.look(FIXTURES / "bad_input/near_misses/nan_weight.onnx")
        self.assertTrue(all(miss.node and miss.reason for miss in report.near_misses))
        self.assertTrue(report.near_misses)


class Errors(Test):
    def check(self, kind: type[acb_fuse.Error], code: int | None, text: str, model: object, **options: object) -> None:
        with self.assertRaises(kind) as caught:
            acb_fuse.fuse(model, self.output, **options)
        error = caught.exception
        self.assertEqual((error.exit_code, str(error)), (code, error.message))
        self.assertIn(text, error.message)
        self.assertFalse(error.message.startswith(("acb-fuse:", "-:")))
        self.assertEqual(error.may_retry, kind in (acb_fuse.ReadWriteError, acb_fuse.Ended))
        self.assertEqual(list(self.folder.glob("*.onnx*")), [])
        copy = pickle.loads(pickle.dumps(error))
        self.assertEqual((type(copy), copy.message, copy.report), (kind, error.message, error.report))
        if error.report is not None:
            self.assertEqual(error.report.outcome, "failed")
            self.assertEqual(error.report.error.exit_code, code)

    def test_by_exit_code(self) -> None:
        self.check(acb_fuse.InvalidModel, 1, "the file is empty", BROKEN)
        self.check(acb_fuse.InvalidModel, 1, "the file is empty", b"")
        self.check(acb_fuse.UsageError, 2, "no such input", ACNET, input_shapes={"nothing": [1, 3]})
        self.check(acb_fuse.UsageError, 2, "--samples", ACNET, samples=-1)
        self.check(acb_fuse.VerificationFailed, 3, "differs", ACNET, tolerance=0)
        self.check(acb_fuse.NothingFused, 4, "nothing was fused", PLAIN, require_fusion=True)
        self.check(acb_fuse.FileError, 8, "No such file", self.folder / "nothing.onnx")
        self.check(acb_fuse.NotRun, 7, "the original gives NaN", NOT_RUN, require_run=True)

    def test_of_other_processes(self) -> None:
        with self.stub("kill -KILL $$"):
            self.check(acb_fuse.Ended, -9, "ended by signal 9: Killed", ACNET)
        with self.stub("echo told to end >&2; exit 130"):
            self.check(acb_fuse.Ended, 130, "told to end", ACNET)
        with self.stub("exit 99"):
            self.check(acb_fuse.Error, 99, "exit code 99", ACNET)
        with self.stub("exit 0"):
            self.check(acb_fuse.Error, 0, "wrote no report", ACNET)
        with self.stub("exec sleep 60"):
            self.check(acb_fuse.TimedOut, None, "longer than 0.2 s", ACNET, timeout=0.2)

    def test_that_nothing_is_installed(self) -> None:
        nowhere = mock.patch("acb_fuse._binary._script_folders", return_value=[self.folder])
        with nowhere, mock.patch.dict("os.environ", PATH=str(self.folder)):
            self.check(acb_fuse.BinaryNotFound, None, "pip install acb-fuse", ACNET)

    def stub(self, script: str) -> mock._patch[mock.MagicMock]:
        """Another tool in place of the installed one."""
        path = self.folder / "stub"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return mock.patch("acb_fuse._binary.find", return_value=path)


class Reports(Test):
    def test_keep_what_the_tool_wrote(self) -> None:
        report = acb_fuse.look(ACNET)
        self.assertEqual(report.json["schema"], report.schema)
        self.assertEqual(acb_fuse.Report.parse(report.json), report)

    def test_of_other_versions(self) -> None:
        report = acb_fuse.look(ACNET)
        newer = {**report.json, "news": 1, "tool": {**report.json["tool"], "news": 1}}
        self.assertEqual(acb_fuse.Report.parse(newer), report)
        self.assertEqual(acb_fuse.Report.parse(newer).json["news"], 1)
        for unreadable in ({}, {"schema": 1}, {**report.json, "tool": None}):
            self.assertRaises(ValueError, acb_fuse.Report.parse, unreadable)

    def test_are_what_the_schema_says(self) -> None:
        schema = json.loads((SOURCE / "src/report/schema.json").read_text(encoding="utf-8"))
        self.assertEqual(of_type(acb_fuse.Report), of_schema(schema, schema["$defs"]))

    def test_cannot_be_changed(self) -> None:
        with self.assertRaises(AttributeError):
            acb_fuse.look(ACNET).outcome = "written"


# Types and schemas in the same words: a dict, a list of one, what may be None in a pair, a plain type.

def of_type(kind: Any) -> Any:
    if is_dataclass(kind):
        return {name: of_type(each) for name, each in get_type_hints(kind).items() if name != "json"}
    if get_origin(kind) is tuple:
        return [of_type(get_args(kind)[0])]
    if get_origin(kind) is Union:
        return (of_type(get_args(kind)[0]), None)
    return str if get_origin(kind) is Literal else kind


def of_schema(schema: Any, definitions: Any) -> Any:
    if "$ref" in schema:
        return of_schema(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return (of_schema(schema["anyOf"][0], definitions), None)
    kind = schema.get("type")
    if isinstance(kind, list):
        return (of_schema({**schema, "type": kind[0]}, definitions), None)
    if kind == "object":
        return {name: of_schema(each, definitions) for name, each in schema["properties"].items()}
    if kind == "array":
        return [of_schema(schema["items"], definitions)]
    if "const" in schema:
        return type(schema["const"])
    return {"integer": int, "number": float, "boolean": bool}.get(kind, str)


if __name__ == "__main__":
    unittest.main()
