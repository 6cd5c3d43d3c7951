"""What is shown of a report: a line for a prompt, and a page for a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._report import Block, Report, Size

_MOST_ROWS = 20
_PREFIXES = ("", " k", " M", " G", " T", " P")


def line(report: Report) -> str:
    """Outcome, blocks, nodes and the verdict of the run."""
    before, after = report.sizes.before.nodes, report.sizes.after.nodes
    done = "fused" if report.outcome == "written" else "found"
    blocks = f"{len(report.blocks)} block{'' if len(report.blocks) == 1 else 's'} {done}"
    parts = [f"Report: {report.outcome}", blocks, f"{_count(before)} → {_count(after)} nodes", *_verdicts(report)]
    return ", ".join(parts)


def size(number: float) -> str:
    """A number in three digits: 9.13 M."""
    if isinstance(number, int) and abs(number) < 1000:
        return str(number)
    for prefix in _PREFIXES:
        if abs(number) < 999.5 or prefix == _PREFIXES[-1]:
            break
        number /= 1000
    return f"{number:#.3g}{prefix}"


def page(report: Report) -> str:
    """What was done in all, block by block, and what was left alone. Names of the model are escaped."""
    parts = [f"<p><b>{html.escape(line(report))}</b></p>", _sizes(report)]
    if report.error is not None:
        parts.append(f"<p>{html.escape(report.error.message)}</p>")
    if report.blocks:
        parts.append(_table(("block", "branches", "nodes", "parameters"), map(_block, report.blocks[:_MOST_ROWS])))
        parts.append(_left_out(len(report.blocks)))
    if report.near_misses:
        rows = [(miss.node, miss.reason) for miss in report.near_misses[:_MOST_ROWS]]
        parts.append(_table(("left alone", "why"), rows))
        parts.append(_left_out(len(report.near_misses)))
    return "".join(parts)


def _verdicts(report: Report) -> list[str]:
    """What the checks showed: the tool's own words, and what Python adds."""
    verdicts = [] if report.verdict is None else [report.verdict]
    if report.onnxruntime is not None:
        verdicts.append(f"also in ONNX Runtime {report.onnxruntime.version}")
    return verdicts


def _sizes(report: Report) -> str:
    def row(name: str, part: str) -> tuple[str, str, str]:
        def of(side: Size) -> str:
            number: float | None = getattr(side, part)
            return _count(number)
        return name, of(report.sizes.before), of(report.sizes.after)
    rows = [row("bytes", "bytes"), row("nodes", "nodes"), row("parameters", "parameters"),
            row("multiply-adds", "multiply_adds")]
    return _table(("", "before", "after"), rows)


def _block(block: Block) -> tuple[str, ...]:
    before, after = block.before, block.after
    return (block.name, block.branches, f"{before.nodes} → {after.nodes}",
            f"{_count(before.parameters)} → {_count(after.parameters)}")


def _count(number: float | None) -> str:
    return "?" if number is None else size(number)


def _left_out(rows: int) -> str:
    return f"<p>and {rows - _MOST_ROWS} more</p>" if rows > _MOST_ROWS else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def cells(tag: str, row: Iterable[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
    return f"<table>{cells('th', head)}{''.join(cells('td', row) for row in rows)}</table>"
