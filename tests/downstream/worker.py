"""Runs jobs for one engine, in its environment and in a process of its own, since engines crash and hang.

    python worker.py ENGINE

works in the folder in which it is started. It reads a job per line from standard input, as JSON, and answers each with
one line: the result or {"error": WHY}.

    {"run": MODEL, "inputs": NPZ, "outputs": NPZ}        writes the outputs -> {}
    {"time": [MODEL, ...], "inputs": NPZ}                -> {"ms": [median of each, ...]}
    {"simplify": MODEL, "result": PATH}                  by onnxsim or OnnxSlim -> {}
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from itertools import cycle, islice, permutations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from engines import ENGINES, Run, Tensors, simplify

WARM_UP, LEAST, MOST, SECONDS = 3, 12, 200, 8.0


def answer(engine: str, job: dict[str, Any]) -> dict[str, Any]:
    if "simplify" in job:
        simplify(engine, Path(job["simplify"]), Path(job["result"]))
        return {}
    inputs = stored(job["inputs"])
    if "time" in job:
        return {"ms": latencies([ENGINES[engine](Path(model), inputs) for model in job["time"]])}
    outputs = ENGINES[engine](Path(job["run"]), inputs)()
    np.savez(job["outputs"], **{f"{i:03}": output for i, output in enumerate(outputs)})
    return {}


def stored(path: str) -> Tensors:
    with np.load(path) as file:
        return dict(file)


def latencies(runs: list[Run]) -> list[float]:
    """Returns the median milliseconds of each; all run in turns, in every order, so that all meet the same noise."""
    times: list[list[float]] = [[] for _ in runs]
    started = time.perf_counter()
    for count, order in enumerate(islice(cycle(permutations(range(len(runs)))), WARM_UP + MOST)):
        if count >= WARM_UP + LEAST and time.perf_counter() - started > SECONDS:
            break
        for i in order:
            start = time.perf_counter()
            runs[i]()
            times[i].append(1000 * (time.perf_counter() - start))
    return [median(column[WARM_UP:]) for column in times]


def main() -> None:
    # Engines print to standard output, where only answers belong: it is redirected to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory(dir=os.getcwd()) as tempfile.tempdir:
            try:
                told = answer(sys.argv[1], json.loads(line))
            except Exception as error:
                told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
