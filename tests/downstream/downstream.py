"""Runs ONNX files before and after fusing in the engines that deploy them, and compares the outputs.

    python tests/downstream/downstream.py FOLDER [--binary PATH] [--engines NAME...] [--table PAGE]

Makes an environment per engine in FOLDER, fuses fixtures of this repository and three networks of full size, and has
every engine load and run each file, before and after. The engine's outputs are compared with those of ONNX Runtime
without optimisations for the file *as it was*. Networks of full size are also timed, and given to two simplifiers
before and after fusing. FOLDER/findings.json keeps the findings, so that other engines can be added later. Exits with
1 if an engine agrees before and not after.

Needs Linux, Python 3.11 or newer, PyPI, some 15 GB of disk and an hour; it is not part of `cargo test`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from findings import AGREES, DIFFERS, FAILS, Change, Column, Findings, Orders, Verdict, packages, page, saved_findings
from workers import Worker, environment

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
REQUIREMENTS = HERE / "requirements"
# The environment of this script and of the judge, which is ONNX Runtime without optimisations.
JUDGE = "onnxruntime"
# Requirements of the environment that exports the networks of full size.
PYTORCH = TOP / "fixtures" / "export" / "requirements.txt"
FULL_SIZE = "full size"
GROUPS = "relatives", "networks", "trained", "exporters", "blocks"
SIMPLIFIERS = "onnxsim", "onnxslim"
# Largest difference, relative to the largest value of an output, by the type of the model's first input.
TOLERANCE = {"float16": 2e-2}
DEFAULT_TOLERANCE = 5e-3
COMMAND = "python tests/downstream/downstream.py FOLDER --table docs/results/downstream.md"


@dataclass(frozen=True)
class Engine:
    """An engine of `engines.py`: its title on the page, its environment, and the groups of models it is given."""

    name: str
    title: str
    environment: str
    groups: tuple[str, ...] = (FULL_SIZE, *GROUPS)


# Engines that take many seconds per file, or minutes, are given fewer groups.
ENGINES = (
    Engine("onnxruntime", "ONNX Runtime", "onnxruntime"),
    Engine("openvino", "OpenVINO", "openvino"),
    Engine("opencv", "OpenCV 5, new engine", "opencv"),
    Engine("opencv_classic", "OpenCV 5, classic engine", "opencv"),
    Engine("mnn", "MNN", "mnn"),
    Engine("ncnn", "ncnn, by pnnx", "ncnn", (FULL_SIZE, "relatives", "networks", "trained")),
    Engine("onnx2torch", "onnx2torch", "onnx2torch"),
    Engine("onnxsim", "onnxsim, ONNX Runtime", "onnxsim"),
    Engine("onnxslim", "OnnxSlim, ONNX Runtime", "onnxslim"),
    Engine("tvm", "TVM", "tvm", ("relatives", "networks", "trained")),
    Engine("onnx2tf", "LiteRT, by onnx2tf", "onnx2tf", ("trained",)),
)


@dataclass(frozen=True)
class Pair:
    """A model before and after fusing, its inputs, and the outputs of ONNX Runtime for the model before."""

    group: str
    name: str
    old: Path
    new: Path
    inputs: Path
    outputs: Path
    tolerance: float


# --- models -------------------------------------------------------------------


def small_pairs(binary: Path, judge: Worker, folder: Path) -> Iterator[Pair]:
    """Yields the fixtures that have something to fuse and that ONNX Runtime runs as they are."""
    from models import fixtures, inputs_of
    for group in GROUPS:
        for fixture in fixtures(group):
            place = folder / group / fixture.name
            made = pair(binary, judge, place, group, fixture.name, fixture.path, inputs_of(fixture.path))
            if made:
                yield made


def full_size_pairs(binary: Path, judge: Worker, folder: Path) -> Iterator[Pair]:
    from models import LARGE, LARGE_INPUT, noise
    python = environment(folder / "environments" / "pytorch", PYTORCH)
    for name in LARGE:
        exported = folder / FULL_SIZE / f"{name}.onnx"
        exported.parent.mkdir(exist_ok=True)
        if not exported.exists():
            subprocess.run([python, HERE / "models.py", name, exported], check=True, capture_output=True)
        made = pair(binary, judge, folder / FULL_SIZE / name, FULL_SIZE, name, exported, {"x": noise(LARGE_INPUT)})
        if made is None:
            sys.exit(f"{name}: ONNX Runtime does not run it, or there is nothing to fuse")
        yield made


def pair(binary: Path, judge: Worker, place: Path, group: str, name: str, old: Path,
         inputs: dict[str, Any]) -> Pair | None:
    import numpy as np
    place.mkdir(parents=True, exist_ok=True)
    new, given, outputs = place / "fused.onnx", place / "inputs.npz", place / "outputs.npz"
    np.savez(given, **inputs)
    if not fuse(binary, old, new) or "error" in judge.ask(run=old, inputs=given, outputs=outputs):
        return None
    kind = next(iter(inputs.values())).dtype.name
    return Pair(group, name, old, new, given, outputs, TOLERANCE.get(kind, DEFAULT_TOLERANCE))


def fuse(binary: Path, old: Path, new: Path) -> bool:
    """Fuses a model and returns whether there was something to fuse."""
    child = subprocess.run([binary, "--force", "--require-fusion", old, new], capture_output=True, text=True)
    if child.returncode not in (0, 4):
        sys.exit(f"{old}: {child.stderr}")
    return child.returncode == 0


# --- what an engine makes of a file -------------------------------------------


def verdict(worker: Worker, pair: Pair, model: Path, scratch: Path) -> Verdict:
    found = scratch / "found.npz"
    told = worker.ask(run=model, inputs=pair.inputs, outputs=found)
    if "error" in told:
        return Verdict(FAILS, told["error"])
    difference = largest_difference(found, pair.outputs)
    return Verdict(AGREES if difference <= pair.tolerance else DIFFERS, difference=difference)


def largest_difference(found: Path, wanted: Path) -> float:
    """Returns the largest difference, relative to the largest value of an output.

    Channels may be last; for any other difference in shape, and for values that are not finite, it is infinite.
    """
    import numpy as np
    differences = []
    with np.load(found) as ours, np.load(wanted) as theirs:
        if len(ours.files) != len(theirs.files):
            return np.inf
        for a, b in zip(ours.values(), theirs.values()):
            a = np.moveaxis(a, -1, 1) if a.shape != b.shape and a.ndim > 2 else a
            if a.shape != b.shape or not np.isfinite(a).all():
                return np.inf
            largest = np.abs(b.astype(np.float64)).max(initial=np.finfo(np.float32).tiny)
            differences.append(np.abs(a.astype(np.float64) - b).max(initial=0) / largest)
    return float(max(differences))


def examined(engine: Engine, python: Path, pairs: list[Pair], scratch: Path) -> Column:
    """Returns the results of one engine for all models of its groups."""
    column = Column(engine.title, packages(REQUIREMENTS / f"{engine.environment}.txt"))
    with Worker(python, engine.name, scratch) as worker:
        for pair in pairs:
            if pair.group not in engine.groups:
                continue
            before, after = (verdict(worker, pair, model, scratch) for model in (pair.old, pair.new))
            change = column.changes[pair.name] = Change(before, after)
            if pair.group == FULL_SIZE:
                column.times[pair.name] = times(worker, pair)
            if change.cell != "✓":
                print(f"{engine.title}: {pair.name}: {change.cell}", flush=True)
    return column


def times(worker: Worker, pair: Pair) -> tuple[float, float] | None:
    told = worker.ask(time=[pair.old, pair.new], inputs=pair.inputs)
    return (told["ms"][0], told["ms"][1]) if "ms" in told else None


# --- before or after a simplifier ---------------------------------------------


def orders(binary: Path, python: Path, judge: Worker, simplifier: str, pair: Pair, scratch: Path) -> Orders:
    simplified, then_fused, then_simplified = (scratch / f"{name}.onnx" for name in ("simplified", "fused", "last"))
    with Worker(python, simplifier, scratch) as worker:
        for model, result in (pair.old, simplified), (pair.new, then_simplified):
            told = worker.ask(simplify=model, result=result)
            if "error" in told:
                sys.exit(f"{simplifier}: {pair.name}: {told['error']}")
    fuse(binary, simplified, then_fused)
    for model in then_fused, then_simplified:
        found = verdict(judge, pair, model, scratch)
        if found.outcome != AGREES:
            sys.exit(f"{simplifier}: {pair.name}: {found}")
    models = pair.old, pair.new, simplified, then_fused, then_simplified
    return Orders(pair.name, simplifier, tuple(map(count_nodes, models)))


def count_nodes(model: Path) -> int:
    import onnx
    return len(onnx.load(model, load_external_data=False).graph.node)


# --- all of it ----------------------------------------------------------------


def ask_all(folder: Path, binary: Path, engines: list[Engine], findings_file: Path, scratch: Path) -> Findings:
    """Runs one or more engines on all models; the saved findings of other engines are kept."""
    pythons = {engine.name: environment(folder / "environments" / engine.environment,
                                        REQUIREMENTS / f"{engine.environment}.txt") for engine in engines}
    with Worker(Path(sys.executable), "reference", scratch) as judge:
        full_size = list(full_size_pairs(binary, judge, folder))
        pairs = [*full_size, *small_pairs(binary, judge, folder / "fixtures")]
        for engine in engines:
            column = examined(engine, pythons[engine.name], pairs, scratch)
            nodes = [orders(binary, pythons[engine.name], judge, engine.name, pair, scratch)
                     for pair in full_size if engine.name in SIMPLIFIERS]
            # Read anew, as another process may have saved findings of other engines meanwhile.
            findings = saved_findings(findings_file, version(binary), by_group(pairs))
            columns = findings.columns | {engine.name: column}
            findings.columns = {each.name: columns[each.name] for each in ENGINES if each.name in columns}
            findings.orders = [each for each in findings.orders if each.simplifier != engine.name] + nodes
            findings.save(findings_file)
            print(f"{engine.title}: done", flush=True)
    return findings


def by_group(pairs: Iterable[Pair]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for pair in pairs:
        names.setdefault(pair.group, []).append(pair.name)
    return names


def version(binary: Path) -> str:
    return subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--binary", type=Path, default=TOP / "target" / "release" / "acb-fuse")
    parser.add_argument("--engines", nargs="+", choices=[engine.name for engine in ENGINES])
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    python = environment(folder / "environments" / JUDGE, REQUIREMENTS / f"{JUDGE}.txt")
    if Path(sys.prefix) != folder / "environments" / JUDGE:
        return subprocess.call([python, *sys.argv])
    wanted = [engine for engine in ENGINES if engine.name in (arguments.engines or [engine.name])]
    with tempfile.TemporaryDirectory() as scratch:
        findings = ask_all(folder, arguments.binary.resolve(), wanted, folder / "findings.json", Path(scratch))
    if arguments.table:
        arguments.table.write_text(page(COMMAND, findings))
    return int(any(change.got_lost for column in findings.columns.values() for change in column.changes.values()))


if __name__ == "__main__":
    sys.exit(main())
