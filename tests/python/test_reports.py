"""Tests of reports: their types, and how they are displayed."""

from __future__ import annotations

import json
import unittest
from dataclasses import is_dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from support import ACNET, NOT_RUN, PLAIN, SOURCE, Test

import acb_fuse
from acb_fuse import _shown

# Fields that Python adds to a report.
OWN = ("json", "onnxruntime")


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

    def test_of_8_bits(self) -> None:
        _, report = acb_fuse.fuse(ACNET.read_bytes(), equalize="exact", samples=1)
        self.assertIsInstance(report.int8_outputs.per_tensor, float)
        self.assertEqual((report.equalization.exact, report.equalization.left_out), (True, 0))

    def test_cannot_be_changed(self) -> None:
        with self.assertRaises(AttributeError):
            acb_fuse.look(ACNET).outcome = "written"


class Shown(Test):
    def test_sizes(self) -> None:
        for number, expected in ((0, "0"), (999, "999"), (1000, "1.00 k"), (12914, "12.9 k"), (13006080.0, "13.0 M"),
                                 (999600, "1.00 M"), (5e18, "5.00e+03 P")):
            self.assertEqual(_shown.size(number), expected)

    def test_in_a_line(self) -> None:
        for shown, expected in (
            (acb_fuse.look(ACNET), "<Report: looked, 3 blocks found, 34 → 13 nodes>"),
            (acb_fuse.look(PLAIN), "<Report: looked, 0 blocks found, 13 → 13 nodes>"),
            (acb_fuse.fuse(ACNET, self.output), "<Report: written, 3 blocks fused, 34 → 13 nodes, {}>"),
            (acb_fuse.fuse(ACNET.read_bytes()), "<Fused bytes: written, 3 blocks fused, 34 → 13 nodes, {}>"),
            (acb_fuse.fuse(ACNET.read_bytes(), verify=False),
             "<Fused bytes: written, 3 blocks fused, 34 → 13 nodes, NOT VERIFIED>"),
        ):
            verdict = getattr(shown, "report", shown).verdict
            self.assertEqual(repr(shown), expected.format(verdict))
        self.assertRegex(acb_fuse.fuse(ACNET.read_bytes()).report.verdict, r"^proved, outputs agree within \d\.\de-\d+$")

    def test_in_a_notebook(self) -> None:
        fused = acb_fuse.fuse(ACNET.read_bytes())
        page = fused._repr_html_()
        self.assertEqual(page, fused.report._repr_html_())
        for part in ("<td>5×5 + 1×5 + 5×1</td>", "<td>12.9 k</td><td>10.4 k</td>", "outputs agree"):
            self.assertIn(part, page)
        self.assertIn("left alone", acb_fuse.look(NOT_RUN)._repr_html_())

    def test_names_are_no_markup(self) -> None:
        report = acb_fuse.look(ACNET)
        hostile = replace(report, blocks=(replace(report.blocks[0], name="<script>"),))
        self.assertIn("<td>&lt;script&gt;</td>", hostile._repr_html_())
        self.assertNotIn("<script>", hostile._repr_html_())

    def test_no_more_than_a_screen(self) -> None:
        report = acb_fuse.look(ACNET)
        many = replace(report, blocks=report.blocks * 20)
        self.assertIn("and 40 more", many._repr_html_())


# Types and JSON schemas in the same notation: a dict, a list of one, a pair with None if it is optional, a plain type.

def of_type(kind: Any) -> Any:
    if is_dataclass(kind):
        return {name: of_type(each) for name, each in get_type_hints(kind).items() if name not in OWN}
    if get_origin(kind) is tuple:
        return [of_type(get_args(kind)[0])]
    if get_origin(kind) is dict:
        return {str: of_type(get_args(kind)[1])}
    if get_origin(kind) is Union:
        return (of_type(get_args(kind)[0]), None)
    return str if get_origin(kind) is Literal else kind


def of_schema(schema: Any, definitions: Any) -> Any:
    if "$ref" in schema:
        return of_schema(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return (of_schema(schema["anyOf"][0], definitions), None)
    if None in schema.get("enum", ()):
        return (str, None)
    kind = schema.get("type")
    if isinstance(kind, list):
        return (of_schema({**schema, "type": kind[0]}, definitions), None)
    if kind == "object" and "properties" not in schema:
        return {str: of_schema(schema["additionalProperties"], definitions)}
    if kind == "object":
        return {name: of_schema(each, definitions) for name, each in schema["properties"].items()}
    if kind == "array":
        return [of_schema(schema["items"], definitions)]
    if "const" in schema:
        return type(schema["const"])
    return {"integer": int, "number": float, "boolean": bool}.get(kind, str)


if __name__ == "__main__":
    unittest.main()
