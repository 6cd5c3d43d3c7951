"""Tests of calls and of their errors.

    python -m unittest discover -s tests/python

Needs only the package and the tool that is installed with it. Tests that concern another package run where that is
installed.
"""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
import unittest
from unittest import mock

from support import ACNET, BESIDE, BLOCKS, BROKEN, FIXTURES, NOT_RUN, PLAIN, Test, sha256

import acb_fuse


class Fusing(Test):
    def test_from_file_to_file(self) -> None:
        report = acb_fuse.fuse(ACNET, str(self.output))
        self.assertEqual((report.outcome, report.mode, report.error), ("written", "verified", None))
        self.assertEqual(report.input.sha256, sha256(ACNET))
        self.assertEqual(report.output.sha256, sha256(self.output))
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
        self.assertEqual(report.output.sha256, sha256(self.output))

    def test_that_fuses_nothing(self) -> None:
        fused = acb_fuse.fuse(PLAIN.read_bytes())
        self.assertEqual(fused.model, PLAIN.read_bytes())
        self.assertEqual((fused.report.blocks, fused.report.changed), ((), False))

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

    def test_calls_that_make_no_sense(self) -> None:
        for call in (
            lambda: acb_fuse.fuse(ACNET),
            lambda: acb_fuse.fuse(3),
            lambda: acb_fuse.fuse(ACNET, self.output, verfy=False),
            lambda: acb_fuse.look(ACNET, verify=False),
        ):
            self.assertRaises(TypeError, call)


class Looking(Test):
    def test_at_a_model(self) -> None:
        for model in (ACNET, str(ACNET), ACNET.read_bytes()):
            report = acb_fuse.look(model)
            self.assertEqual((report.outcome, report.mode, report.output), ("looked", "look", None))
            self.assertEqual(len(report.blocks), BLOCKS)

    def test_near_misses(self) -> None:
        report = acb_fuse.look(FIXTURES / "bad_input/near_misses/nan_weight.onnx")
        self.assertTrue(all(miss.node and miss.reason for miss in report.near_misses))
        self.assertTrue(report.near_misses)


class Errors(Test):
    def check(
        self, kind: type[Exception], code: int | None, text: str, model: object, also: type[Exception] = acb_fuse.Error,
        **options: object,
    ) -> None:
        """Checks that a call raises this error, which is also one of Python's, and leaves nothing behind."""
        with self.subTest(kind=kind.__name__, text=text), self.assertRaises(kind) as caught:
            acb_fuse.fuse(model, self.output, **options)
        error = caught.exception
        self.assertIs(type(error), kind)
        self.assertIsInstance(error, also)
        self.assertEqual((error.exit_code, str(error)), (code, error.message))
        self.assertIn(text, error.message)
        self.assertNotRegex(error.message, r"^(acb-fuse|-|error):|(^|[^`])--[a-z]")
        self.assertEqual(error.may_retry, kind in (acb_fuse.ReadWriteError, acb_fuse.Ended))
        self.assertEqual(list(self.folder.glob("*.onnx*")), [])
        copy = pickle.loads(pickle.dumps(error))
        self.assertEqual((type(copy), copy.message, copy.report), (kind, error.message, error.report))
        if error.report is not None:
            self.assertEqual(error.report.outcome, "failed")
            self.assertEqual(error.report.error.exit_code, code)

    def test_by_exit_code(self) -> None:
        nowhere = self.folder / "nothing.onnx"
        for kind, code, text, model, also, options in (
            (acb_fuse.InvalidModel, 1, "the file is empty", BROKEN, ValueError, {}),
            (acb_fuse.InvalidModel, 1, "the file is empty", b"", ValueError, {}),
            (acb_fuse.UsageError, 2, "no such input", ACNET, ValueError, {"input_shapes": {"nothing": [1, 3]}}),
            (acb_fuse.UsageError, 2, "'-1' for samples: a number", ACNET, ValueError, {"samples": -1}),
            (acb_fuse.UsageError, 2, "for keep_identity", ACNET, ValueError, {"keep_identity": "some"}),
            (acb_fuse.UsageError, 2, "keep_identity cannot be used with for_", ACNET, ValueError,
             {"for_": "int8", "keep_identity": "auto"}),
            (acb_fuse.VerificationFailed, 3, "differs", ACNET, acb_fuse.Error, {"tolerance": 0}),
            (acb_fuse.NothingFused, 4, "nothing was fused", PLAIN, ValueError, {"require_fusion": True}),
            (acb_fuse.MissingFile, 8, "(os error 2)", nowhere, FileNotFoundError, {}),
            (acb_fuse.NotRun, 7, "the original gives NaN", NOT_RUN, acb_fuse.Error, {"require_run": True}),
        ):
            self.check(kind, code, text, model, also, **options)

    def test_of_the_system_have_its_number(self) -> None:
        with self.assertRaises(OSError) as caught:
            acb_fuse.look(self.folder / "nothing.onnx")
        self.assertEqual(caught.exception.errno, 2)

    def test_that_there_is_an_output(self) -> None:
        self.output.write_bytes(b"mine")
        for options, kind, text in (
            ({"clobber": False}, acb_fuse.ExistingFile, "it exists already"),
            ({}, acb_fuse.UsageError, "force=True replaces it"),
        ):
            with self.assertRaisesRegex(kind, text):
                acb_fuse.fuse(ACNET, self.output, **options)
        self.assertEqual(self.output.read_bytes(), b"mine")
        self.assertTrue(issubclass(acb_fuse.ExistingFile, FileExistsError))

    @unittest.skipUnless(os.name == "posix", "the tool in its place is a script of a shell")
    def test_of_other_processes(self) -> None:
        for script, kind, code, text, options in (
            ("kill -KILL $$", acb_fuse.Ended, -9, "ended by signal 9: Killed", {}),
            ("echo told to end >&2; exit 130", acb_fuse.Ended, 130, "told to end", {}),
            ("exit 99", acb_fuse.Error, 99, "exit code 99", {}),
            ("exit 0", acb_fuse.Error, 0, "wrote no report", {}),
            ("exec sleep 60", acb_fuse.TimedOut, None, "longer than 0.2 s", {"timeout": 0.2}),
        ):
            with self.stub(script):
                self.check(kind, code, text, ACNET, TimeoutError if options else acb_fuse.Error, **options)

    @unittest.skipUnless(os.name == "posix", "names are bytes")
    def test_names_that_are_no_utf_8_reach_the_tool(self) -> None:
        given = self.folder / "given"
        names = [os.fsencode(self.folder) + end for end in (b"/\xff.onnx", b"/\xfe/out.onnx", b"/\xfd.html")]
        model, output, report = map(os.fsdecode, names)
        with self.stub(f'printf "%s\\n" "$@" > {given}; exit 99'), self.assertRaises(acb_fuse.Error):
            acb_fuse.fuse(model, output, report_html=report)
        words = given.read_bytes().splitlines()
        self.assertEqual(words[-2:], names[:2])
        self.assertIn(b"--report=" + names[2], words)

    def test_progress_is_told_and_its_failure_raised(self) -> None:
        told: list[tuple[str, int | None, int | None]] = []
        acb_fuse.fuse(ACNET, self.output, progress=lambda *stage: told.append(stage))
        stages = list(dict.fromkeys(stage for stage, _, _ in told))
        self.assertEqual(stages, ["reading", "planning", "proving", "writing", "running"])
        proved = [(done, of_all) for stage, done, of_all in told if stage == "proving"]
        self.assertTrue(proved and all(done is not None and of_all == proved[0][1] for done, of_all in proved), proved)

        def fail(*_: object) -> None:
            raise KeyError("mine")
        with self.assertRaisesRegex(KeyError, "mine"):
            acb_fuse.look(ACNET, progress=fail)

    def test_that_nothing_is_installed(self) -> None:
        nowhere = mock.patch("acb_fuse._binary._script_folders", return_value=[self.folder])
        with nowhere, mock.patch.dict("os.environ", PATH=str(self.folder)):
            self.check(acb_fuse.BinaryNotFound, None, "pip install acb-fuse", ACNET, FileNotFoundError)

    def stub(self, script: str) -> mock._patch[mock.MagicMock]:
        """Puts a script in place of the installed tool."""
        path = self.folder / "stub"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return mock.patch("acb_fuse._binary.find", return_value=path)


if __name__ == "__main__":
    unittest.main()
