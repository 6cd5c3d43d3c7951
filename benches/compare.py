"""Compares acb-fuse with its peers and with a copy of the file on large models: time, memory and resulting nodes.

    python benches/compare.py [--binary target/release/acb-fuse] [--only MODEL...] [--tools TOOL...] [--rounds 5]

Makes the models, and virtual environments with the peers and with PyTorch, once, in a folder. Prints one table per
model and one with the limits that acb-fuse is held to. Every tool runs as a process of its own, in turns: each round
begins with another tool, so that all meet the same noise. The file is in the page cache. The figures are medians.

The copy is `cp`, then `sync` of the copy and its folder, because acb-fuse syncs what it writes. The peers do not.
Needs Linux, Python 3.11 or newer, some 15 GB of disk and, for the peers on the largest model, 10 GB of memory.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import StatisticsError, median

from measure import run, smallest_peak

HERE = Path(__file__).resolve().parent
# Names of virtual environments. The peers have their own, since some of them import PyTorch if it is installed.
PEERS_ONLY, PYTORCH = "peers", "pytorch"
REQUIREMENTS = {
    PEERS_ONLY: HERE / "requirements.txt",
    PYTORCH: HERE.parent / "fixtures" / "export" / "requirements.txt",
}
MB, GB = 1e6, 1e9

# Name -> title, script that makes the model, environment of the script, and number of rounds in which the peers take
# part (None: all).
MODELS = {
    "chain_100": ("a chain of 100 blocks", "chains.py", PEERS_ONLY, None),
    "chain_1000": ("a chain of 1,000 blocks", "chains.py", PEERS_ONLY, 1),
    "chain_10000": ("a chain of 10,000 blocks", "chains.py", PEERS_ONLY, 1),
    "resnet18": ("ResNet-18 as an ACNet, 224²", "architectures.py", PYTORCH, None),
    "resnet18_float16": ("ResNet-18 as an ACNet in float16, 224²", "architectures.py", PYTORCH, None),
    "resnet18_plain": ("plain ResNet-18: nothing to fuse", "architectures.py", PYTORCH, None),
    "resnet18_plain_external": ("plain ResNet-18, its weights in a side file", "architectures.py", PYTORCH, None),
    "vgg16": ("VGG-16 as an ACNet, 224²", "architectures.py", PYTORCH, 3),
    "depthwise27": ("a 27×27 and a 5×5 depthwise kernel of 512 channels", "large_kernels.py", PEERS_ONLY, None),
    "replknet31b": ("RepLKNet-31B, 224²", "large_kernels.py", PEERS_ONLY, 1),
    "wide": ("nine blocks of 2,048 channels, their weights in a side file", "chains.py", PEERS_ONLY, 1),
}
COPY, LOOK, UNVERIFIED, VERIFIED, RUNTIME = (
    "copy", "acb-fuse IN", "acb-fuse --no-verify IN OUT", "acb-fuse IN OUT", "onnxruntime")
OURS = LOOK, UNVERIFIED, VERIFIED
PEERS = "onnxsim", "onnxslim", "onnxoptimizer", "onnxscript", RUNTIME
TOOLS = COPY, *OURS, *PEERS
# ONNX Runtime's offline optimisation calls a convolution with its activation FusedConv.
CONVOLUTIONS = "Conv", "FusedConv"


# --- what runs -----------------------------------------------------------------

def command(tool, binary, python, files, folder):
    """Returns the command line by which a tool makes `folder`/model.onnx of the model, the first of `files`."""
    model, output = files[0], folder / files[0].name
    beside = len(files) > 1
    match tool:
        case "copy":
            return ["sh", "-c", 'folder=$1; shift; cp "$@" "$folder" && sync "$folder"/* "$folder"', "sh", folder, *files]
        case "acb-fuse IN":
            return [binary, model]
        case "acb-fuse IN OUT":
            return [binary, model, output]
        case "acb-fuse --no-verify IN OUT":
            return [binary, "--no-verify", model, output]
        case "onnxsim" | "onnxslim":
            return [python.parent / tool, model, output, *["--save-as-external-data"] * beside]
        case _:
            return [python, HERE / "peers.py", tool, model, output, *["--external-data"] * beside]


def virtual_environment(folder, name):
    """Returns the Python of an environment, which is installed anew when its requirements change."""
    requirements = REQUIREMENTS[name]
    python, installed = folder / name / "bin" / "python", folder / name / "installed.txt"
    if not installed.exists() or installed.read_text() != requirements.read_text():
        say(f"Installing {requirements}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / name], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        shutil.copy(requirements, installed)
    return python


def model_files(folder, name, script, environment):
    """Returns the paths of a model and of its side file, if it has one; makes them if they are missing."""
    place = folder / "models" / name
    if not place.exists():
        python = virtual_environment(folder, environment)
        say(f"Making {name}")
        unfinished = fresh(place.with_suffix(".part"))
        subprocess.run([python, HERE / script, name, unfinished], check=True)
        unfinished.rename(place)
    return sorted(place.iterdir())


# --- what is measured ----------------------------------------------------------

class Result:
    """The runs of one tool on one model, the operators of its output (None without an output), and why it failed."""

    def __init__(self):
        self.runs, self.operators, self.problem = [], None, None

    def median(self, figure):
        return median(getattr(usage, figure) for usage in self.runs)


def measure(options, python, name, files):
    """Returns, by tool, the result for one model."""
    results = {tool: Result() for tool in options.tools}
    peer_rounds = MODELS[name][-1] or options.rounds
    for path in files:
        warm(path)
    for i in range(options.rounds):
        order = options.tools[i % len(options.tools):] + options.tools[:i % len(options.tools)]
        for tool in order:
            if not results[tool].problem and (i < peer_rounds or tool not in PEERS):
                measure_once(options, python, tool, files, results[tool])
    return results


def measure_once(options, python, tool, files, result):
    folder = fresh(options.folder / "output")
    log = options.folder / "log.txt"
    usage = run(command(tool, options.binary, python, files, folder), log, options.limit)
    output = folder / files[0].name
    if tool != LOOK and not usage.problem and not output.exists():
        usage.problem = "wrote nothing"
    say(f"{files[0].parent.name}: {tool}: {usage.problem or f'{usage.wall:.2f} s'}")
    if usage.problem:
        result.problem = usage.problem
        return
    result.runs.append(usage)
    if tool != LOOK and not result.operators:
        result.operators = operators(python, output)
    shutil.rmtree(folder)


def operators(python, path):
    return json.loads(subprocess.run([python, HERE / "operators.py", path], check=True, capture_output=True).stdout)


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def warm(path):
    """Brings a file into the page cache."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


# --- what is printed -------------------------------------------------------------

COLUMNS = "tool", "Conv", "nodes", "wall s", "÷ copy", "CPU s", "peak MB", "÷ file", "runs"


def print_model(name, files, before, results):
    size = bytes_of(files)
    print(f"\n### {MODELS[name][0]}: {size / MB:,.1f} MB\n")
    print_row(COLUMNS)
    print_row(["---", *["---:"] * (len(COLUMNS) - 1)])
    for tool, result in results.items():
        print_row(cells(tool, result, before, size, results.get(COPY)))


def cells(tool, result, before, size, copy):
    if result.problem:
        return [versioned(tool), result.problem, *[""] * (len(COLUMNS) - 2)]
    after = result.operators
    walls = [usage.wall for usage in result.runs]
    seen = result.median("peak") > smallest_peak()
    wall = f"{median(walls):.3f}" if len(walls) == 1 else f"{median(walls):.3f} ({min(walls):.3f}–{max(walls):.3f})"
    return [versioned(tool),
            before_and_after(before, after, CONVOLUTIONS), before_and_after(before, after, before | (after or {})),
            wall, ratio(median(walls), copy and copy.runs and copy.median("wall")), f"{result.median('cpu'):.2f}",
            f"{'' if seen else '< '}{result.median('peak') / MB:,.0f}", ratio(result.median("peak"), seen and size),
            str(len(walls))]


def before_and_after(before, after, names):
    counts = [sum(operators.get(name, 0) for name in names) for operators in (before, after) if operators]
    return " → ".join(f"{count:,}" for count in counts)


def ratio(figure, unit):
    return f"{figure / unit:.2f}" if unit else ""


def versioned(tool):
    pins = REQUIREMENTS[PEERS_ONLY].read_text().splitlines()
    return next((pin.replace("==", " ") for pin in pins if pin.startswith(f"{tool}==")), tool)


def bytes_of(files):
    return sum(path.stat().st_size for path in files)


def print_row(texts):
    print(f"| {' | '.join(texts)} |", flush=True)


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- what acb-fuse is held to ----------------------------------------------------

def targets(sizes, results):
    """Yields (what, figure, limit) for each limit whose runs were asked for; the figure is None if one failed."""
    def wall(model, tool):
        return results[model][tool].median("wall")

    def peak(model, tool):
        return results[model][tool].median("peak")

    def cpu(model, tool):
        return results[model][tool].median("cpu")

    def ten_times(figure, tool):
        return lambda: figure("chain_10000", tool) / figure("chain_1000", tool)

    rows = [
        ("ResNet-18, not verified: wall ÷ copy", 2,
         lambda: wall("resnet18", UNVERIFIED) / wall("resnet18", COPY)),
        ("ResNet-18, not verified: peak ÷ file", 1.5,
         lambda: peak("resnet18", UNVERIFIED) / sizes["resnet18"]),
        ("ResNet-18, verified: wall ÷ ONNX Runtime's offline optimisation", 1,
         lambda: wall("resnet18", VERIFIED) / wall("resnet18", RUNTIME)),
        ("ResNet-18, verified: peak in GB", 0.26,
         lambda: peak("resnet18", VERIFIED) / GB),
        ("ResNet-18 in float16, verified: wall ÷ in float32", 2,
         lambda: wall("resnet18_float16", VERIFIED) / wall("resnet18", VERIFIED)),
        ("2 GB, not verified: wall ÷ copy", 1.5,
         lambda: wall("wide", UNVERIFIED) / wall("wide", COPY)),
        ("2 GB, not verified: peak ÷ file", 0.5,
         lambda: peak("wide", UNVERIFIED) / sizes["wide"]),
        ("2 GB, verified: peak ÷ file (activations not counted)", 1.5,
         lambda: peak("wide", VERIFIED) / sizes["wide"]),
        *((f"10,000 ÷ 1,000 blocks, `{tool}`: {what}", 11, ten_times(figure, tool))
          for tool in OURS for what, figure in (("wall", wall), ("peak", peak))),
        ("10,000 blocks, matching alone: wall in s", 1,
         lambda: wall("chain_10000", LOOK)),
        *((f"{MODELS[model][0]}, verified: {what}", limit, figure)
          for model, seconds, most in (("depthwise27", 1, 0.064), ("replknet31b", 15, 0.6))
          for what, limit, figure in (("CPU in s", seconds, partial(cpu, model, VERIFIED)),
                                      ("peak in GB", most, lambda model=model: peak(model, VERIFIED) / GB))),
        ("nothing to fuse: wall ÷ copy", 1.2,
         lambda: wall("resnet18_plain", VERIFIED) / wall("resnet18_plain", COPY)),
        ("nothing to fuse, a side file: wall ÷ copy", 1.2,
         lambda: wall("resnet18_plain_external", VERIFIED) / wall("resnet18_plain_external", COPY)),
    ]
    for what, limit, figure in rows:
        try:
            yield what, figure(), limit
        except KeyError:
            pass  # The user did not ask for these runs.
        except StatisticsError:
            yield what, None, limit


def print_targets(sizes, results):
    rows = list(targets(sizes, results))
    if rows:
        print("\n### Held to\n")
        print_row(["what", "figure", "limit", "met"])
        print_row(["---", "---:", "---:", "---"])
    for what, figure, limit in rows:
        met = figure is not None and figure <= limit
        print_row([what, "failed" if figure is None else f"{figure:.2f}", f"{limit}", "yes" if met else "**no**"])


# --- all ---------------------------------------------------------------------------

def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_places(parser)
    parser.add_argument("--only", nargs="+", metavar="MODEL", choices=MODELS, default=list(MODELS),
                        help=", ".join(MODELS))
    parser.add_argument("--tools", nargs="+", metavar="TOOL", choices=TOOLS, default=list(TOOLS),
                        help=", ".join(TOOLS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS", help="after which a run is ended")
    return parser.parse_args()


def add_places(parser):
    parser.add_argument("--binary", type=Path, default=Path("target/release/acb-fuse"))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "acb-fuse-benches",
                        help="where models, peers and outputs are; made if it is not there")


def main():
    options = arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    python = virtual_environment(options.folder, PEERS_ONLY)
    sizes, results = {}, {}
    for name in options.only:
        _, script, environment, _ = MODELS[name]
        files = model_files(options.folder, name, script, environment)
        sizes[name], results[name] = bytes_of(files), measure(options, python, name, files)
        print_model(name, files, operators(python, files[0]), results[name])
    print_targets(sizes, results)


if __name__ == "__main__":
    main()
