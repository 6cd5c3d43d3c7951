"""Tests that all options exist, are documented, reach the tool, and are named in its messages."""

from __future__ import annotations

import inspect
import re
import subprocess
import unittest

from support import ACNET, BLOCKS, Test, needs

import acb_fuse
from acb_fuse import _options

# Flags without an option in Python: they are about files, terminals, or many models at once.
NOT_OPTIONS = {"--output", "--look", "--check", "--out-dir", "--manifest", "--jobs", "--verbose", "--quiet", "--no-color",
               "--completions", "--man", "--help", "--version"}


class Signatures(Test):
    def test_have_every_option(self) -> None:
        for function, options in ((acb_fuse.fuse, acb_fuse.FuseOptions), (acb_fuse.look, acb_fuse.LookOptions)):
            keywords = {name: each for name, each in inspect.signature(function).parameters.items()
                        if each.kind is each.KEYWORD_ONLY}
            self.assertEqual(keywords.keys(), options.__annotations__.keys())
            self.assertEqual({each.default for each in keywords.values()}, {None})
            for name, each in keywords.items():
                # Python versions differ in whether they wrap the text of an annotation in a ForwardRef.
                annotation = options.__annotations__[name]
                self.assertEqual(each.annotation, getattr(annotation, "__forward_arg__", annotation), name)

    def test_are_documented(self) -> None:
        for name in acb_fuse.FuseOptions.__annotations__:
            self.assertRegex(acb_fuse.fuse.__doc__, rf"\n *{name} : ")

    def test_have_every_flag(self) -> None:
        told = subprocess.run([acb_fuse.find_binary(), "--help"], check=True, capture_output=True, encoding="utf-8").stdout
        flags = set(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z0-9-]*)", told, re.MULTILINE))
        self.assertEqual(flags - NOT_OPTIONS, {each.flag for each in _options._FLAGS.values()} | {"--timeout", "--progress"})


class Given(Test):
    def test_all_together(self) -> None:
        report = acb_fuse.fuse(
            ACNET, self.output, verify=True, require_run=True, require_fusion=True, keep_overridable=True,
            training_mode="keep", follow_links=True, clobber=False, samples=2, seed=1, tolerance=1e-3, growth=0.2,
            keep_identity="auto", input_shapes={"x": (8, 3, 32, 32)}, verify_timeout=600, verify_memory=4, timeout=600,
            threads=1, report_html=self.folder / "report.html")
        self.assertEqual(report.mode, "verified")
        self.assertIn("<html", (self.folder / "report.html").read_text(encoding="utf-8"))

    def test_some(self) -> None:
        first = acb_fuse.look(ACNET).blocks[0].name
        report = acb_fuse.fuse(ACNET, self.output, verify=False, skip=[first])
        self.assertEqual(report.mode, "unverified")
        self.assertNotIn(first, [block.name for block in report.blocks])
        self.assertEqual(len(report.blocks), BLOCKS - 1)

    def test_none_is_not_given(self) -> None:
        for function, options in ((acb_fuse.fuse, acb_fuse.FuseOptions), (acb_fuse.look, acb_fuse.LookOptions)):
            plain, given = (function(ACNET.read_bytes(), **each) for each in ({}, dict.fromkeys(options.__annotations__)))
            for one in (plain, given):
                self.assertEqual(getattr(one, "report", one).error, None)
            self.assertEqual(repr(plain), repr(given))

    def test_as_words(self) -> None:
        for options, words in (
            ({"verify": True}, []),
            ({"verify": False}, ["--no-verify"]),
            ({"verify": "onnxruntime"}, []),
            ({"clobber": True, "force": False}, []),
            ({"clobber": False, "force": True}, ["--no-clobber", "--force"]),
            ({"skip": "one"}, ["--skip=one"]),
            ({"skip": ("one", "-2")}, ["--skip=one", "--skip=-2"]),
            ({"equalize": True}, ["--equalize"]),
            ({"equalize": False}, []),
            ({"equalize": "exact"}, ["--equalize=exact"]),
            ({"for_": "int8", "growth": 0.2, "seed": 0}, ["--for=int8", "--growth=0.2", "--seed=0"]),
            ({"input_shapes": {"x": (1, 3), "y": [2]}}, ["--input-shape=x=1,3", "--input-shape=y=2"]),
            ({"inputs": "all.npz"}, ["--input=all.npz"]),
            ({"inputs": {"x": "x.npy"}}, ["--input=x=x.npy"]),
            ({"timeout": 3}, []),
        ):
            with self.subTest(options):
                self.assertEqual(_options.words(options), words)


class Inputs(Test):
    @needs("numpy")
    def test_arrays_and_files(self) -> None:
        import numpy

        array = numpy.random.default_rng(0).standard_normal((8, 3, 32, 32)).astype("float32")
        numpy.save(self.folder / "x.npy", array)
        numpy.savez(self.folder / "x.npz", x=array)
        for inputs in (
            {"x": array},
            {"x": array.astype(">f4")},
            {"x": numpy.asfortranarray(array)},
            {"x": self.folder / "x.npy"},
            {"x": str(self.folder / "x.npy")},
            self.folder / "x.npz",
        ):
            _, report = acb_fuse.fuse(ACNET.read_bytes(), inputs=inputs, equalize=True)
            self.assertTrue(report.equalization.given)
            self.assertEqual(report.run.shapes[0][0].shape, (8, 3, 32, 32))

    @needs("torch")
    def test_tensors_of_torch(self) -> None:
        import torch

        _, report = acb_fuse.fuse(ACNET.read_bytes(), inputs={"x": torch.zeros(8, 3, 32, 32)}, equalize=True)
        self.assertTrue(report.equalization.given)

    @needs("numpy")
    def test_that_do_not_fit(self) -> None:
        import numpy

        for inputs, kind, text in (
            ({"y": numpy.zeros(3, "float32")}, acb_fuse.UsageError, "`y`"),
            ({"x": numpy.zeros((8, 3, 32, 32), "int32")}, acb_fuse.UsageError, "not of integers"),
            ({"x": numpy.zeros(3, "complex64")}, acb_fuse.UsageError, "^inputs: its type `<c8` is not one"),
            ({"x": numpy.array(["text"])}, acb_fuse.UsageError, "^inputs: its type"),
            ({"x": numpy.array([{}])}, TypeError, "no array of numbers"),
            ({"x": object()}, TypeError, "no array of numbers"),
        ):
            with self.assertRaisesRegex(kind, text):
                acb_fuse.fuse(ACNET.read_bytes(), inputs=inputs)


class Messages(Test):
    def test_name_options(self) -> None:
        for told, expected in (
            ("it would grow: --growth 0.25 allows that", "it would grow: growth=0.25 allows that"),
            ("(--verify-timeout allows more)", "(verify_timeout allows more)"),
            ("left alone because of --skip", "left alone because of skip"),
            ("--training-mode convert uses them all the same", 'training_mode="convert" uses them all the same'),
            ("--keep-identity auto keeps it", 'keep_identity="auto" keeps it'),
            ("--keep-identity", "keep_identity"),
            ("use --input-shape x=1,3,224,224", 'use input_shapes={"x": (1, 3, 224, 224)}'),
            ("--input-shape n=5 is more", 'input_shapes={"n": (5,)} is more'),
            ("--keep-overridable", "keep_overridable=True"),
            ("leave out --no-verify", "leave out verify=False"),
            ("(--force replaces it)", "(force=True replaces it)"),
            ("invalid value '-1' for '--samples <N>': a number", "invalid value '-1' for samples: a number"),
            ("'--equalize[=<HOW>]' cannot", "equalize cannot"),
            ("node `--skip`: no", "node `--skip`: no"),
            ("a -- b, --unknown", "a -- b, --unknown"),
        ):
            with self.subTest(told):
                self.assertEqual(_options.in_python(told), expected)


if __name__ == "__main__":
    unittest.main()
