"""Measures what fusing gains at inference: nodes and latency in ONNX Runtime, and what peers still find to fold.

    python tests/packages/trained_packages.py FOLDER --keep
    python tests/packages/gains.py FOLDER [--table docs/gains.md]

For every model in FOLDER that the tool changed, it measures: the nodes that ONNX Runtime leaves of the old and the new
file (ORT_ENABLE_EXTENDED, as nodes_in_onnxruntime.py counts them); the latency of the new file and of a second session
of the old file, both divided by that of the old file (medians; all three in turns, in every order, on one thread); and
how many batch norms, and products and sums, a peer still removes from the new file.

Exits with 1 if ONNX Runtime leaves more nodes of a new file than of the old one, or a peer removes batch norms from it.
Makes a virtual environment with the peers in FOLDER; needs Linux, Python 3.11 or newer, and PyPI. It is not part of
`cargo test`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from itertools import cycle, islice, permutations
from pathlib import Path
from statistics import median

from trained_packages import PACKAGES, unpack

HERE = Path(__file__).resolve().parent
BENCHES = HERE.parent.parent / "benches"
REQUIREMENTS = BENCHES / "requirements.txt"
PEERS = "onnxsim", "onnxslim", "onnxoptimizer", "onnxscript"
# Operators that a convolution could absorb.
NORMS, PRODUCTS_AND_SUMS = ("BatchNormalization",), ("Mul", "Div", "Add", "Sub")
PEER_SECONDS, MEASURE_SECONDS = 300, 900
# Bounds on the rounds of a measurement: fast sessions run more often, until SECONDS or MOST are reached.
WARM_UP, LEAST, MOST, SECONDS = 2, 12, 240, 6.0


# --- in a process of its own, in the environment ------------------------------

def gain_of(old, new):
    """Returns the nodes in ONNX Runtime of both files, the old one's latency, and ratios to it: new ÷ old, old ÷ old.

    Latency and ratios are None if the files run at none of the assignments.
    """
    import onnx
    from in_onnxruntime import KINDS, SEEDS, assignments, feeds, inputs_of
    from nodes_in_onnxruntime import nodes_of_optimised
    nodes = [nodes_of_optimised(path).total() for path in (old, new)]
    inputs = inputs_of(onnx.load(old, load_external_data=False))
    sessions = [timed_session(path) for path in (old, new, old)]
    for shapes in assignments(inputs):
        fed = feeds(inputs, shapes, KINDS[0], SEEDS[0])
        try:
            for session in sessions:
                session.run(None, fed)
        except Exception:
            continue
        times = latencies(sessions, fed)
        return {"nodes": nodes, "ms": times[0], "ratios": [times[1] / times[0], times[2] / times[0]]}
    return {"nodes": nodes, "ms": None, "ratios": None}


def timed_session(path):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def latencies(sessions, fed):
    """Returns the median latency of each session in milliseconds."""
    times = [[] for _ in sessions]
    started = time.perf_counter()
    for count, order in enumerate(islice(cycle(permutations(range(len(sessions)))), WARM_UP + MOST)):
        if count >= WARM_UP + LEAST and time.perf_counter() - started > SECONDS:
            break
        for i in order:
            start = time.perf_counter()
            sessions[i].run(None, fed)
            times[i].append(1000 * (time.perf_counter() - start))
    return [median(column[WARM_UP:]) for column in times]


# --- what is left for peers ---------------------------------------------------

def linear_nodes(file):
    """Returns the numbers of batch norms, and of products and sums (of two tensors, or a tensor and a constant)."""
    import onnx
    found = Counter(node.op_type for node in onnx.load(file, load_external_data=False).graph.node)
    return [sum(found[name] for name in names) for names in (NORMS, PRODUCTS_AND_SUMS)]


def left_for(peer, python, fused, work):
    """Returns how many norms, and products and sums, a peer removes; None if it ends with an error."""
    result = work / f"{peer}.onnx"
    command = ([python.parent / peer, fused, result] if peer in ("onnxsim", "onnxslim")
               else [python, BENCHES / "peers.py", peer, fused, result])
    try:
        subprocess.run(command, capture_output=True, timeout=PEER_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    if not result.exists():
        return None
    return [before - after for before, after in zip(linear_nodes(fused), linear_nodes(result))]


# --- all models ---------------------------------------------------------------

def environment(folder):
    """Returns the Python of an environment with the peers, which is made if necessary."""
    python, made = folder / "peers/bin/python", folder / "peers/requirements.txt"
    if not made.exists() or made.read_text() != REQUIREMENTS.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "peers"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
        made.write_text(REQUIREMENTS.read_text())
    return python


def examine(old, fused, python):
    command = [python, __file__, "--gain", old, fused]
    child = subprocess.run(command, capture_output=True, text=True, timeout=MEASURE_SECONDS)
    gain = json.loads(child.stdout) if child.returncode == 0 else None
    with tempfile.TemporaryDirectory() as work:
        return gain, {peer: left_for(peer, python, fused, Path(work)) for peer in PEERS}


def problems(gain, left):
    found = [f"{peer} folds {fewer[0]} norms" for peer, fewer in left.items() if fewer and fewer[0] > 0]
    return found + ["more nodes in ONNX Runtime"] * bool(gain and gain["nodes"][1] > gain["nodes"][0])


HEAD = "model", "nodes in ONNX Runtime", "ms", "new ÷ old", "old ÷ old", *(f"left for {peer}" for peer in PEERS)


def row(name, gain, left):
    nodes = "{} → {}".format(*gain["nodes"]) if gain else "not loaded"
    figures = [f"{gain['ms']:.1f}", *(f"{ratio:.2f}" for ratio in gain["ratios"])] if gain and gain["ms"] else [""] * 3
    told = ["failed" if fewer is None else ", ".join(
        f"{count} {what}{'s' if count > 1 else ''}" for count, what in zip(fewer, ("norm", "other")) if count > 0) or "–" for fewer in left.values()]
    return name, nodes, *figures, *told


def lines(rows):
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (HEAD, ["---"] * len(HEAD), *rows))


def document(rows, gains):
    ratios = sorted(gain["ratios"][0] for gain in gains if gain and gain["ratios"])
    own = sorted(gain["ratios"][1] for gain in gains if gain and gain["ratios"])
    pins = ", ".join(REQUIREMENTS.read_text().split())
    return f"""# What fusing gains on trained models of public packages

`python tests/packages/gains.py FOLDER --table docs/gains.md` wrote this page on {date.today().isoformat()}, of the
files that `python tests/packages/trained_packages.py FOLDER --keep` had written, with {pins}.

{len(rows)} models. Latency of the new file divided by that of the old one, one thread, all in turns: {ratios[0]:.2f} to
{ratios[-1]:.2f}, median {median(ratios):.2f}; of the old file by itself: {own[0]:.2f} to {own[-1]:.2f}.

*Left for* a peer: how many batch norms (*norms*) and how many products and sums (*others*: Mul, Div, Add, Sub) the
peer still removes from the new file.

{lines(rows)}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    python = environment(folder)
    if Path(sys.prefix) != folder / "peers":
        return subprocess.call([python, __file__, *sys.argv[1:]])
    rows, gains, failed = [], [], False
    models, _ = unpack(list(PACKAGES), folder)
    for package, path, old in models.values():
        fused = folder / "results" / old.stem / "fused.onnx"
        if not fused.exists() or old.read_bytes() == fused.read_bytes():
            continue
        gain, left = examine(old, fused, python)
        rows.append(row(f"{package}: {path.split('/')[-1]}", gain, left))
        gains.append(gain)
        found = problems(gain, left)
        failed |= bool(found)
        print("  ".join(rows[-1]), *(f"!! {problem}" for problem in found), flush=True)
    if arguments.table:
        arguments.table.write_text(document(rows, gains))
    return int(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--gain"]:
        json.dump(gain_of(*sys.argv[2:4]), sys.stdout)
    else:
        sys.exit(main())
