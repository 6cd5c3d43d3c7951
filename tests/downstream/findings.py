"""The results of engines on files as plain data, and the page that presents them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

AGREES, DIFFERS, FAILS = "agrees", "differs", "fails"
# Places in a source, names of nodes and paths: the parts of engines' error messages that vary between models.
PLACES = re.compile(r"OpenCV\(\S*\) \S+: error: |^[> -]+|:\(onnx_node!\S*\)|ONNX node '[^']*'|/tmp/\S*")
LONGEST_REASON = 160


@dataclass(frozen=True)
class Verdict:
    """The outcome of one file in an engine."""

    outcome: str
    why: str = ""
    """How it fails."""
    difference: float | None = None
    """From what was expected, relative to the largest value of the output, if the engine computed anything."""


@dataclass(frozen=True)
class Change:
    """The outcomes of a model before and after fusing in an engine."""

    before: Verdict
    after: Verdict

    @property
    def got_lost(self) -> bool:
        return self.before.outcome == AGREES != self.after.outcome

    @property
    def cell(self) -> str:
        if self.before.outcome == self.after.outcome:
            return "✓" if self.after.outcome == AGREES else self.after.outcome
        return f"{self.before.outcome} → {'✓' if self.after.outcome == AGREES else self.after.outcome}"


@dataclass
class Column:
    """All results of one engine, a column of the page."""

    title: str
    packages: str
    changes: dict[str, Change] = field(default_factory=dict)
    """By the name of the model."""
    times: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    """Milliseconds before and after, by the name of a network of full size."""


@dataclass(frozen=True)
class Orders:
    """Numbers of a network's nodes: exported, fused, simplified, simplified and fused, fused and simplified."""

    network: str
    simplifier: str
    nodes: tuple[int, ...]


@dataclass
class Findings:
    """The content of the page; it is kept in a file, so that engines can be run one by one."""

    tool: str
    names: dict[str, list[str]]
    """Of the models, by group."""
    columns: dict[str, Column] = field(default_factory=dict)
    """By the name of the engine."""
    orders: list[Orders] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))


def saved_findings(path: Path, tool: str, names: dict[str, list[str]]) -> Findings:
    """Returns the saved findings, or none if the file is missing or of another tool version or other models."""
    data = json.loads(path.read_text()) if path.exists() else {}
    if (data.get("tool"), data.get("names")) != (tool, names):
        return Findings(tool, names)
    columns = {name: saved_column(column) for name, column in data["columns"].items()}
    return Findings(tool, names, columns, [Orders(**each) for each in data["orders"]])


def saved_column(data: dict[str, Any]) -> Column:
    changes = {name: Change(Verdict(**change["before"]), Verdict(**change["after"]))
               for name, change in data["changes"].items()}
    return Column(data["title"], data["packages"], changes, data["times"])


def page(command: str, findings: Findings) -> str:
    columns, names = list(findings.columns.values()), findings.names
    count = sum(map(len, names.values()))
    return f"""# What engines make of fused files

`{command}` wrote this page on {date.today().isoformat()}, with {findings.tool}.

{count} models that have something to fuse, of this repository's fixtures and of full size, each before and after. An
engine *agrees* if what it computes is what ONNX Runtime, its optimisations off, computes of the file **as it was**,
within 5e-3 of the output's largest value (2e-2 for float16): engines approximate, each for itself. The largest
difference of what agrees, before and after, stands beside it. Every engine runs in a process of its own, on one thread
and in float32, with the sizes of the fixture's inputs.

{summary(columns)}
## Latency

Milliseconds per image of 224×224, batch 1, one thread, before → after: medians of runs in turns, in every order, in one
process. The machine had two cores, with more than two processes for them: the ratios compare files, and the
milliseconds say nothing of engines.

{latency(columns)}
## Before or after a simplifier

Nodes of a network as it was exported, fused, simplified, simplified and then fused, fused and then simplified. ONNX
Runtime computes the same of the last two, within the tolerance above.

{simplified(findings.orders)}
## What fails, and how

{failures(columns)}
## Every model

✓: agrees before and after. Otherwise, the cell says what the engine did, and behind an arrow what it did with the fused
file, if that is something else. An empty cell was not tried.

{"".join(every_model(group, members, columns) for group, members in names.items())}"""


def summary(columns: list[Column]) -> str:
    head = ["engine", "packages", "models", "loads before → after", "agrees before → after", "agrees only after",
            "only before", "largest difference"]
    return table(head, [summary_row(column) for column in columns])


def summary_row(column: Column) -> list[str]:
    changes = column.changes.values()
    loads, agrees = ([(change.before.outcome in outcomes, change.after.outcome in outcomes) for change in changes]
                     for outcomes in ((AGREES, DIFFERS), (AGREES,)))
    return [column.title, column.packages, str(len(changes)), both(loads), both(agrees),
            str(agrees.count((False, True))), str(agrees.count((True, False))),
            f"{largest(change.before for change in changes)} → {largest(change.after for change in changes)}"]


def largest(verdicts: Iterable[Verdict]) -> str:
    """Returns the largest difference among the verdicts that agree, as text."""
    return f"{max(verdict.difference or 0 for verdict in verdicts if verdict.outcome == AGREES):.0e}"


def both(flags: list[tuple[bool, bool]]) -> str:
    return f"{sum(before for before, _ in flags)} → {sum(after for _, after in flags)}"


def latency(columns: list[Column]) -> str:
    networks = list(dict.fromkeys(name for column in columns for name in column.times))
    return table(["engine", *networks], [[column.title, *(time_cell(column.times.get(name)) for name in networks)]
                                         for column in columns if column.times])


def time_cell(times: tuple[float, float] | None) -> str:
    return f"{times[0]:.1f} → {times[1]:.1f} ({times[0] / times[1]:.1f}×)" if times else "not measured"


def simplified(orders: Iterable[Orders]) -> str:
    head = ["network", "simplifier", "exported", "fused", "simplified", "simplified, fused", "fused, simplified"]
    return table(head, [[each.network, each.simplifier, *map(str, each.nodes)] for each in orders])


def failures(columns: list[Column]) -> str:
    """Returns a table of the ways to fail or differ, with the number of models before and after fusing."""
    rows = []
    for column in columns:
        before = reasons(change.before for change in column.changes.values())
        after = reasons(change.after for change in column.changes.values())
        rows += [[column.title, why, f"{before[why]} → {after[why]}"] for why in sorted(before | after)]
    return table(["engine", "how", "models before → after"], rows)


def reasons(verdicts: Iterable[Verdict]) -> Counter[str]:
    return Counter(reason(verdict) for verdict in verdicts if verdict.outcome != AGREES)


def reason(verdict: Verdict) -> str:
    """Returns why a file fails, as one short line that is the same for all models and cannot end a table cell."""
    if verdict.outcome == DIFFERS:
        return "differs"
    last = [line for line in verdict.why.splitlines() if line.strip(" >")][-1].strip()
    return f"`{PLACES.sub('', last).replace('|', '¦').replace('`', '')[:LONGEST_REASON]}`"


def every_model(group: str, names: list[str], columns: list[Column]) -> str:
    tried = [column for column in columns if any(name in column.changes for name in names)]
    rows = [[name, *(cell(column, name) for column in tried)] for name in names]
    return f"### {group}\n\n{table(['model', *(column.title for column in tried)], rows)}\n"


def cell(column: Column, model: str) -> str:
    return column.changes[model].cell if model in column.changes else ""


def table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def packages(requirements: Path) -> str:
    return ", ".join(requirements.read_text().replace("==", " ").split("\n")[:-1])
