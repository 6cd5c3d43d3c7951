"""Tests of a notebook, run as users run it."""

from __future__ import annotations

import unittest

from support import ACNET, Test, needs

CELLS = (
    ("import acb_fuse", None),
    ("acb_fuse.look({model!r})", "<td>5×5 + 1×5 + 5×1</td>"),
    ("fused = acb_fuse.fuse(open({model!r}, 'rb').read()); fused", "outputs agree"),
    ("model, report = fused; report", "<td>12.9 k</td><td>10.4 k</td>"),
    ("help(acb_fuse.fuse)", "skip : names"),
    # Notebook kernels ask programs for colours, but the message must have none.
    ("acb_fuse.look({model!r}, threads=0)", "invalid value '0' for threads: a number"),
)


@needs("nbclient", "nbformat", "ipykernel")
class Notebook(Test):
    def test_shows_what_was_done(self) -> None:
        import nbclient
        import nbformat

        sources = [nbformat.v4.new_code_cell(source.format(model=str(ACNET))) for source, _ in CELLS]
        notebook = nbformat.v4.new_notebook(cells=sources)
        resources = {"metadata": {"path": str(self.folder)}}
        nbclient.NotebookClient(notebook, kernel_name="python3", allow_errors=True, resources=resources).execute()
        for cell, (source, expected) in zip(notebook.cells, CELLS):
            with self.subTest(source):
                shown = "".join(told(output) for output in cell.outputs)
                self.assertIn(expected or "", shown)
                self.assertEqual(expected is None, shown == "")


def told(output: object) -> str:
    """Returns the text of an output: of a stream, of an error, or of a displayed value."""
    data = output.get("data", {})
    return output.get("text") or output.get("evalue") or data.get("text/html") or data.get("text/plain", "")


if __name__ == "__main__":
    unittest.main()
