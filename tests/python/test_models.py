"""Tests of models in memory: each is returned as the type in which it was given, which stays unchanged."""

from __future__ import annotations

import pickle
import unittest

from support import ACNET, BESIDE, BLOCKS, Test, needs

import acb_fuse


class Bytes(Test):
    def test_of_every_type(self) -> None:
        expected = acb_fuse.fuse(ACNET.read_bytes()).model
        for kind in (bytes, bytearray, memoryview):
            model = kind(ACNET.read_bytes())
            fused = acb_fuse.fuse(model)
            self.assertIs(type(fused.model), kind)
            self.assertEqual(bytes(fused.model), expected)
            self.assertEqual(bytes(model), ACNET.read_bytes())
            self.assertEqual(len(acb_fuse.look(model).blocks), BLOCKS)


class FusedModels(Test):
    def test_are_pairs(self) -> None:
        fused = acb_fuse.fuse(ACNET.read_bytes())
        model, report = fused
        self.assertEqual((model, report), (fused.model, fused.report))

    def test_can_be_pickled(self) -> None:
        fused = acb_fuse.fuse(ACNET.read_bytes())
        copy = pickle.loads(pickle.dumps(fused))
        self.assertEqual((type(copy), copy.model, copy.report), (acb_fuse.Fused, fused.model, fused.report))


@needs("onnx")
class Protos(Test):
    def test_come_out_as_protos(self) -> None:
        import onnx

        model = onnx.load(ACNET)
        before = model.SerializeToString()
        fused = acb_fuse.fuse(model)
        self.assertIsInstance(fused.model, onnx.ModelProto)
        self.assertEqual(fused.model, onnx.load_from_string(acb_fuse.fuse(before).model))
        self.assertEqual(model.SerializeToString(), before)
        self.assertEqual(len(acb_fuse.look(model).blocks), BLOCKS)


class Large(Test):
    def test_are_given_by_their_paths(self) -> None:
        class Proto:
            ir_version = 10

            def SerializeToString(self) -> bytes:
                raise RuntimeError("exceeds 2GB")

        with self.assertRaisesRegex(ValueError, "exceeds 2GB.*give its path"):
            acb_fuse.fuse(Proto())


@needs("onnx_ir")
class IrModels(Test):
    def test_come_out_as_such(self) -> None:
        import onnx_ir

        for path, blocks in ((ACNET, BLOCKS), (BESIDE, 1)):
            model = onnx_ir.load(path)
            before = [type(value.const_value) for value in model.graph.initializers.values()]
            nodes = len(model.graph)
            fused, report = acb_fuse.fuse(model)
            self.assertIsInstance(fused, onnx_ir.Model)
            self.assertEqual(len(report.blocks), blocks)
            self.assertEqual(len(fused.graph), report.sizes.after.nodes)
            self.assertEqual(len(model.graph), nodes)
            self.assertEqual([type(value.const_value) for value in model.graph.initializers.values()], before)
            self.assertEqual(len(acb_fuse.look(model).blocks), blocks)


@needs("torch", "onnxscript")
class Programs(Test):
    def test_come_out_as_such(self) -> None:
        import torch

        class Block(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.square = torch.nn.Conv2d(3, 4, 3, padding=1)
                self.horizontal = torch.nn.Conv2d(3, 4, (1, 3), padding=(0, 1))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.square(x) + self.horizontal(x)

        example = torch.randn(1, 3, 8, 8)
        module = Block().eval()
        program = torch.onnx.export(module, (example,), dynamo=True, verbose=False)
        fused, report = acb_fuse.fuse(program)
        self.assertIsInstance(fused, torch.onnx.ONNXProgram)
        self.assertIs(fused.exported_program, program.exported_program)
        self.assertEqual([node.op_type for node in fused.model.graph], ["Conv"])
        self.assertEqual(len(report.blocks), 1)
        torch.testing.assert_close(fused(example)[0], module(example), rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    unittest.main()
