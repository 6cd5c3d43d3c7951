"""Fuses a folder of models on a Ray cluster.

    python examples/convert_on_ray.py MODELS RESULTS [--address HOST:6379] [--options '{"require_run": true}']

Every .onnx file below MODELS is converted to the same place below RESULTS, with its report beside it as .report.json;
all machines must see both folders. Prints one line per model, and a summary. Exits with 1 if a model could not be
converted. examples/README.md has the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import acb_fuse
import ray

# Upper bound on the tasks that are submitted and not done: enough for all machines, not too many for the driver.
IN_FLIGHT = 1000
SECONDS_BEFORE_RETRY = 1.0


@dataclass(frozen=True)
class Result:
    """The outcome of one model ("fused", "unchanged" or "failed"), a line about it, and its report as JSON."""

    outcome: str
    text: str
    report: dict[str, Any] | None


def convert(source: Path, target: Path, options: acb_fuse.FuseOptions) -> Result:
    """Fuses one model, on any machine. Raises errors that may not occur again, so that Ray tries once more."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return converted(acb_fuse.fuse(source, target, **options))
    except acb_fuse.Error as error:
        if error.may_retry:
            time.sleep(SECONDS_BEFORE_RETRY)
            raise
        return failed(error)


def converted(report: acb_fuse.Report) -> Result:
    before, after = report.sizes.before, report.sizes.after
    text = f"{counted(len(report.blocks), 'block')}, {before.nodes} -> {after.nodes} nodes"
    if report.run is not None and report.run.outcome == "not_run":
        text += f", not run: {report.run.reason}"
    return Result("fused" if report.blocks else "unchanged", text, report.json)


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def failed(error: Exception) -> Result:
    report = error.report if isinstance(error, acb_fuse.Error) else None
    return Result("failed", f"{type(error).__name__}: {error}", report.json if report else None)


def lost(error: ray.exceptions.RayError) -> Result:
    """Returns the result of a model whose retries are used up: its own error, or that its workers died."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    return failed(cause)


def convert_all(
    jobs: Iterator[tuple[str, Path, Path]], task: Any, options: acb_fuse.FuseOptions
) -> Iterator[tuple[str, Result]]:
    """Yields the name and the result of every job as soon as it is done; `jobs` are (name, source, target)."""
    running: dict[Any, str] = {}
    for name, source, target in jobs:
        running[task.remote(source, target, options)] = name
        if len(running) >= IN_FLIGHT:
            yield finished(running)
    while running:
        yield finished(running)


def finished(running: dict[Any, str]) -> tuple[str, Result]:
    """Waits for one of the `running` tasks, removes it, and returns its name and result."""
    [done], _ = ray.wait(list(running), num_returns=1)
    name = running.pop(done)
    try:
        return name, ray.get(done)
    except ray.exceptions.RayError as error:
        return name, lost(error)


def models(folder: Path, results: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yields the name, source and target of every model below `folder`."""
    for source in sorted(folder.rglob("*.onnx")):
        name = source.relative_to(folder)
        yield str(name), source, results / name


def keep_report(result: Result, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result.report or {"outcome": "failed", "error": {"message": result.text}}, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuses a folder of models on a Ray cluster.")
    parser.add_argument("models", type=Path, help="a folder of .onnx files")
    parser.add_argument("results", type=Path, help="where the fused models and their reports go")
    parser.add_argument("--address", help="the cluster, as HOST:PORT, or `auto`; without it, this machine alone")
    parser.add_argument("--cpus", type=int, default=2, help="processors that each model gets [default: 2]")
    parser.add_argument("--memory", type=float, default=0, help="GiB of memory that Ray keeps for each model")
    parser.add_argument("--retries", type=int, default=3, help="times that a lost model is tried again [default: 3]")
    parser.add_argument("--options", type=json.loads, default={}, help="of acb_fuse.fuse, as JSON")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    outcomes = Counter[str]()
    lines = sys.stdout
    # Otherwise, the tool would take all processors of a machine on which other models are converted, too.
    environment = {"env_vars": {"RAYON_NUM_THREADS": str(given.cpus)}}
    # Ray prints what it notices, such as retries, to standard output, where the results are.
    with redirect_stdout(sys.stderr), ray.init(given.address, runtime_env=environment, log_to_driver=False):
        task = ray.remote(convert).options(
            num_cpus=given.cpus,
            memory=given.memory * 2**30 or None,
            max_retries=given.retries,
            retry_exceptions=[acb_fuse.ReadWriteError, acb_fuse.Ended],
        )
        for name, result in convert_all(models(given.models, given.results), task, given.options):
            keep_report(result, given.results / f"{name}.report.json")
            outcomes[result.outcome] += 1
            print(f"{result.outcome:9}  {name}  {result.text}", file=lines, flush=True)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{counted(outcomes.total(), 'model')}: {summary}")
    return 1 if outcomes["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
