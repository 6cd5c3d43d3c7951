"""Tests of the run in ONNX Runtime, which comes after the tool's own run and never replaces it."""

from __future__ import annotations

import unittest
from unittest import mock

from support import ACNET, BESIDE, NOT_RUN, PLAIN, Test, needs

import acb_fuse
from acb_fuse import _onnxruntime


@needs("onnxruntime")
class InOnnxRuntime(Test):
    def test_agrees(self) -> None:
        for model, output in ((ACNET, self.output), (ACNET.read_bytes(), None), (BESIDE, self.folder / "beside.onnx")):
            result = acb_fuse.fuse(model, output, verify="onnxruntime", samples=2)
            report = getattr(result, "report", result)
            self.assertEqual((report.mode, report.run.outcome), ("verified", "agreed"))
            self.assertTrue(report.onnxruntime.outputs)
            for one in report.onnxruntime.outputs:
                self.assertLess(one.error, 1e-4)
            self.assertIn("also in ONNX Runtime", repr(report))

    def test_names_of_side_files_differ_on_trial(self) -> None:
        import onnx

        beside = self.folder / "beside.onnx"
        onnx.save(onnx.load(ACNET), beside, save_as_external_data=True, location="weights", size_threshold=0)
        report = acb_fuse.fuse(beside, self.folder / "deploy.onnx", verify="onnxruntime")
        self.assertEqual([file.location for file in report.output.side_files], ["deploy.onnx.data"])
        self.assertTrue(report.onnxruntime.outputs)

    def test_takes_inputs(self) -> None:
        import numpy
        import onnx

        array = numpy.ones((8, 3, 32, 32), "float32")
        numpy.save(self.folder / "x.npy", array)
        numpy.savez(self.folder / "x.npz", x=array)
        test_data = self.folder / "test_data"
        test_data.mkdir()
        (test_data / "input_0.pb").write_bytes(onnx.numpy_helper.from_array(array).SerializeToString())
        for inputs in (
            {"x": array}, {"x": self.folder / "x.npy"}, {"x": test_data / "input_0.pb"}, self.folder / "x.npz", test_data,
        ):
            _, report = acb_fuse.fuse(ACNET.read_bytes(), verify="onnxruntime", inputs=inputs)
            self.assertEqual(report.onnxruntime.shapes[0][0].shape, array.shape)
            with mock.patch("acb_fuse._onnxruntime._input", wraps=_onnxruntime._input) as asked:
                acb_fuse.fuse(ACNET.read_bytes(), verify="onnxruntime", inputs=inputs)
            self.assertTrue(all((value == 1).all() for value in asked.call_args.args[2].values()))

    def test_is_needless_where_nothing_changed(self) -> None:
        _, report = acb_fuse.fuse(PLAIN.read_bytes(), verify="onnxruntime")
        self.assertIsNone(report.onnxruntime)

    def test_fails(self) -> None:
        for name, wrong, kind, text in (
            ("_error", mock.Mock(return_value=0.5), acb_fuse.VerificationFailed, "differs in ONNX Runtime"),
            ("_TYPES", {}, acb_fuse.NotRun, "can be given nothing for input `x`"),
            ("_run", mock.Mock(return_value={"y": [1.0]}), acb_fuse.NotRun, "output `y` is no tensor"),
            ("_run", mock.Mock(return_value={}), acb_fuse.NotRun, "no outputs to compare"),
            ("_run", mock.Mock(side_effect=RuntimeError("broken")), acb_fuse.NotRun, "does not run the original.*broken"),
        ):
            for output in (self.output, None):
                model = ACNET if output else ACNET.read_bytes()
                with mock.patch(f"acb_fuse._onnxruntime.{name}", wrong), self.assertRaisesRegex(kind, text) as caught:
                    acb_fuse.fuse(model, output, verify="onnxruntime")
                self.assertIsNotNone(caught.exception.report)
                self.assertEqual(list(self.folder.iterdir()), [])

    def test_of_what_it_cannot_load(self) -> None:
        with self.assertRaisesRegex(acb_fuse.VerificationFailed, "loads the original and not the result"):
            _onnxruntime.compare(ACNET.read_bytes(), b"nothing", {}, acb_fuse.look(ACNET))
        with self.assertRaisesRegex(acb_fuse.NotRun, "does not load the original"):
            _onnxruntime.compare(b"nothing", ACNET.read_bytes(), {}, acb_fuse.look(ACNET))

    def test_measures_differences(self) -> None:
        import numpy

        infinite, nan = float("inf"), float("nan")
        for before, after, expected in (
            ([1.0, 2.0], [1.0, 2.0], 0.0),
            ([1.0, 2.0], [1.5, 2.0], 0.25),
            ([0.0], [0.0], 0.0),
            ([0.0], [1.0], infinite),
            ([nan, 1.0], [nan, 1.0], 0.0),
            ([nan, 1.0], [0.0, 1.0], infinite),
            ([1.0], [infinite], infinite),
            ([1.0], [1.0, 1.0], infinite),
            ([], [], 0.0),
        ):
            with self.subTest(before=before, after=after):
                self.assertEqual(_onnxruntime._error(*(numpy.array(each, "float32") for each in (before, after))), expected)


class Without(Test):
    def test_it_is_asked_for_before_the_work(self) -> None:
        missing = mock.patch("acb_fuse._onnxruntime.import_module", side_effect=ImportError)
        with missing, self.assertRaisesRegex(ImportError, "pip install onnxruntime"):
            acb_fuse.fuse(NOT_RUN, self.output, verify="onnxruntime")


if __name__ == "__main__":
    unittest.main()
