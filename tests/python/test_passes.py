"""Tests of the passes for other packages' pipelines."""

from __future__ import annotations

import unittest

from support import ACNET, BESIDE, BLOCKS, BROKEN, PLAIN, Test, needs

import acb_fuse


@needs("onnx_ir")
class OfOnnxIr(Test):
    def test_in_a_sequence(self) -> None:
        import onnx_ir
        from onnx_ir.passes.common import CheckerPass

        from acb_fuse.onnx_ir import FuseBlocksPass

        for path, blocks in ((ACNET, BLOCKS), (BESIDE, 1), (PLAIN, 0)):
            fusing = FuseBlocksPass(samples=2)
            passes = onnx_ir.passes.Sequential(fusing, CheckerPass())
            model = onnx_ir.load(path)
            result = passes(model)
            self.assertEqual((len(fusing.report.blocks), result.modified), (blocks, blocks > 0))
            self.assertEqual(len(result.model.graph), fusing.report.sizes.after.nodes)
            self.assertEqual(len(model.graph), fusing.report.sizes.before.nodes)


@needs("olive", "onnxruntime")
class OfOlive(Test):
    def run_workflow(self, model: object, **options: object) -> object:
        from olive.workflows import run

        from acb_fuse.olive import package_config

        workflow = {
            "input_model": {"type": "OnnxModel", "model_path": str(model)},
            "passes": {"fuse": {"type": "AcbFuse", **options}},
            "output_dir": str(self.folder / "out"), "cache_dir": str(self.folder / "cache"), "log_severity_level": 4,
        }
        return run(workflow, package_config=package_config())

    def test_in_a_workflow(self) -> None:
        import onnx

        for model, options in ((ACNET, {"verify": "onnxruntime"}), (BESIDE, {}), (ACNET, {"for_": "int8", "samples": 2})):
            output = self.run_workflow(model, **options).get_best_candidate()
            operators = [node.op_type for node in onnx.load(output.model_path).graph.node]
            self.assertEqual(len(operators), acb_fuse.look(model).sizes.after.nodes)
            self.assertNotIn("BatchNormalization", operators)

    def test_failures_are_errors(self) -> None:
        with self.assertRaisesRegex(acb_fuse.InvalidModel, "the file is empty"):
            self.run_workflow(BROKEN)


if __name__ == "__main__":
    unittest.main()
