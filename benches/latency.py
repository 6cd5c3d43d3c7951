"""Measures what fusing gains at inference: the latency of the paper's architectures in ONNX Runtime.

    FOLDER/pytorch/bin/python benches/latency.py [--binary target/release/acb-fuse] [--only ARCHITECTURE...]

FOLDER and its Python are those of compare.py, which makes them. Each architecture is exported with PyTorch at the
width of its paper, as an ACNet and as the plain network with the same function and its batch norms folded. The
ACNet goes through acb-fuse and all peers. First, the peers' results run in turns; then the fastest of them, ours and
the plain network do, in every order, so that all meet the same noise. The figures are medians.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import compare

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fixtures" / "export"))

from architectures import ARCHITECTURES
from operators import operators
from speed import measure

# The architectures of the paper; it has VGG-16 on small images only.
PAPERS = [name for name in ARCHITECTURES if name != "vgg16"]
COLUMNS = ("architecture", "input", "nodes exported → best peer, ours, plain", "best peer", "ms best peer", "ms ours",
           "ms plain", "best peer ÷ ours", "ours ÷ plain", "within 3 %")
# Numbers of runs. The plain network and ours differ by less than the noise of a few dozen runs, so they take more.
ROUNDS_OF_PEERS, ROUNDS = 24, 240


def row(name, binary, peers_python, folder):
    size = ARCHITECTURES[name][1]
    exported, plain = (compare.model_files(folder, model, "architectures.py", compare.PYTORCH)
                       for model in (name, f"{name}_plain"))
    outputs = {tool: optimised(tool, binary, peers_python, exported, folder / "latency")
               for tool in (*compare.PEERS, compare.VERIFIED)}
    ours = outputs.pop(compare.VERIFIED)
    times = dict(zip(outputs, measure(list(outputs.values()), size, ROUNDS_OF_PEERS)))
    best = min(times, key=times.get)
    paths = [outputs[best], ours, plain[0]]
    best_ms, ours_ms, plain_ms = measure(paths, size, ROUNDS)
    nodes = [operators(path).total() for path in (exported[0], *paths)]
    assert operators(ours) == operators(plain[0]), operators(ours) - operators(plain[0])
    shutil.rmtree(folder / "latency")
    return [name, f"{size}²", "{} → {}, {}, {}".format(*nodes), compare.versioned(best),
            f"{best_ms:.2f}", f"{ours_ms:.2f}", f"{plain_ms:.2f}", f"{best_ms / ours_ms:.2f}",
            f"{ours_ms / plain_ms:.3f}", "yes" if abs(ours_ms / plain_ms - 1) <= 0.03 else "**no**"]


def optimised(tool, binary, python, files, folder):
    """Runs a tool on a model and returns the path of the result."""
    place = compare.fresh(folder / tool.replace(" ", "_"))
    command = compare.command(tool, binary, python, files, place)
    subprocess.run(command, check=True, capture_output=True)
    return place / files[0].name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    compare.add_places(parser)
    parser.add_argument("--only", nargs="+", metavar="ARCHITECTURE", choices=ARCHITECTURES, default=PAPERS,
                        help=", ".join(ARCHITECTURES))
    options = parser.parse_args()
    peers_python = compare.virtual_environment(options.folder, compare.PEERS_ONLY)
    compare.print_row(COLUMNS)
    compare.print_row(["---"] * len(COLUMNS))
    for name in options.only:
        compare.print_row(row(name, options.binary, peers_python, options.folder))


if __name__ == "__main__":
    main()
