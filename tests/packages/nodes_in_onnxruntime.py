"""Fuses models, and reports where ONNX Runtime's own optimisation leaves more nodes of the new model than of the old.

    cargo build --release
    python tests/packages/nodes_in_onnxruntime.py MODEL_OR_FOLDER... [--binary target/release/acb-fuse]
        [--largest MB] [--table FILE.md]

ONNX Runtime optimises both files (ORT_ENABLE_EXTENDED, on the CPU) and writes the results, whose nodes are counted:
those in bodies of If, Loop and Scan too, but not constants. Each file is optimised in a process of its own, since
malformed ones end it. Models that the tool leaves as they are, that it refuses as its help says (exit codes 1, 2, 7
and 8), that ONNX Runtime does not load as they were, or that are larger than --largest, are counted but not judged.

Prints one line per model that has more nodes, that ONNX Runtime no longer loads, or on which the tool ends with another
exit code, and exits with 1 if there is one. --table writes the models that the tool changed as Markdown. Needs Linux,
and onnx and onnxruntime of requirements.txt. It is not part of `cargo test`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter, namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parent.parent.parent
# Limits of a process: bytes of memory, and seconds to fuse and to optimise a model.
MEMORY, FUSE_SECONDS, OPTIMISE_SECONDS = 16 << 30, 900, 300
# Exit codes of refusals: an invalid model, a question to the caller, out of time or memory, a side file that is missing.
REFUSALS = 1, 2, 7, 8
UNCHANGED, NEVER, TOO_LARGE = "left as they are", "not loaded by ONNX Runtime", "too large"
FEWER, EQUAL, MORE = "fewer", "equal", "more"
GONE, FAILED = "no longer loaded", "the tool failed"
JUDGED, FAILURES = (FEWER, EQUAL, MORE, GONE), (MORE, GONE, FAILED)
# The result of a model; `in_file` and `in_runtime` are its nodes by operator, before and after fusing.
Result = namedtuple("Result", "name outcome in_file in_runtime message", defaults=((), (), ""))


def operators(graph):
    """Yields the operator of each node but constants, in bodies too."""
    for node in graph.node:
        if node.op_type != "Constant":
            yield node.op_type
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from operators(body)


def nodes_of_file(file):
    return Counter(operators(onnx.load(file, load_external_data=False).graph))


def nodes_of_optimised(file):
    """Returns the nodes that ONNX Runtime leaves, by operator. Runs in this process, which ONNX Runtime may end."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as work:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(work) / "optimised.onnx")
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return nodes_of_file(options.optimized_model_filepath)


def in_runtime(file):
    """Returns the nodes that ONNX Runtime leaves, counted in another process; None and why if it loads no such file."""
    command = [sys.executable, __file__, "--count", file]
    try:
        child = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=OPTIMISE_SECONDS)
    except subprocess.TimeoutExpired:
        return None, f"not done in {OPTIMISE_SECONDS} s"
    if child.returncode:
        return None, f"exit code {child.returncode}: {''.join(child.stderr.strip().splitlines()[-1:])}"
    return Counter(json.loads(child.stdout)), ""


def examine(name, file, binary, largest):
    if file.stat().st_size > largest * 1e6:
        return Result(name, TOO_LARGE)
    with tempfile.TemporaryDirectory() as work:
        return compared(name, file, binary, Path(work) / "fused.onnx")


def compared(name, file, binary, fused):
    command = [binary, file, fused, "--no-verify", "-q", "--timeout", str(FUSE_SECONDS)]
    child = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    if child.returncode in REFUSALS:
        return Result(name, f"refused by the tool (exit code {child.returncode})")
    if child.returncode:
        said = "".join(child.stderr.strip().splitlines()[-1:])
        return Result(name, FAILED, message=f"exit code {child.returncode}: {said}")
    if file.read_bytes() == fused.read_bytes():
        return Result(name, UNCHANGED)
    old, problem = in_runtime(file)
    if old is None:
        return Result(name, NEVER, message=problem)
    new, problem = in_runtime(fused)
    if new is None:
        return Result(name, GONE, message=problem)
    in_file = nodes_of_file(file), nodes_of_file(fused)
    more = new.total() - old.total()
    return Result(name, MORE if more > 0 else FEWER if more < 0 else EQUAL, in_file, (old, new))


def arrow(counts):
    return " → ".join(str(count.total()) for count in counts)


def line(result):
    if result.outcome != MORE:
        return f"{result.name}: {result.outcome}: {result.message}"
    old, new = result.in_runtime
    apart = ", ".join(f"{name} {old[name]} → {new[name]}" for name in sorted(old | new) if old[name] != new[name])
    return f"{result.name}: {arrow(result.in_runtime)} nodes (in the file {arrow(result.in_file)}): {apart}"


def summary(results):
    found = Counter(result.outcome for result in results)
    judged = {outcome: found.pop(outcome, 0) for outcome in (*JUDGED, FAILED)}
    counts = ", ".join(f"{count} {outcome}" for outcome, count in [*judged.items(), *sorted(found.items())])
    return f"{len(results)} models: {counts}."


def table(results):
    rows = [("model", "nodes in the file", "nodes in ONNX Runtime"), ("---",) * 3]
    rows += [(result.name, arrow(result.in_file), arrow(result.in_runtime) or result.outcome)
             for result in results if result.outcome in JUDGED]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/acb-fuse")
    parser.add_argument("--largest", type=float, default=float("inf"), metavar="MB")
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    files = [(str(file.relative_to(path.parent)), file) for path in map(Path.resolve, arguments.models)
             for file in (sorted(path.rglob("*.onnx")) if path.is_dir() else [path])]
    results, binary = [], arguments.binary.resolve()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(lambda named: examine(*named, binary, arguments.largest), files):
            if result.outcome in FAILURES:
                print(line(result), flush=True)
            results.append(result)
    print(summary(results))
    if arguments.table:
        arguments.table.write_text(table(results))
    return int(any(result.outcome in FAILURES for result in results))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        json.dump(nodes_of_optimised(sys.argv[2]), sys.stdout)
    else:
        sys.exit(main())
