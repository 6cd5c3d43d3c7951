"""Converts random models with the tool, and compares the old and the new files in ONNX Runtime.

    python fuzz/differential.py --tool target/release/acb-fuse --seeds 0:30000 --state DIR [--jobs 2]

For each seed, a model (random_models.py) is converted with and without verification, the unverified file, if it
differs, is converted again, and the old and new files run at several sizes (agreement.py). Findings are kept in
DIR/findings, with their inputs. DIR/state.json lists the seeds that are done, so that the same command goes on where
it was stopped. At the end, a table is printed; the exit code is 1 if there are findings. `--seeds 17:18` is one model.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import onnx

from agreement import (Judge, NotRun, Runner, deploy_form, difference, every_node, opset_of, trains, without_dropout,
                       without_node_names)
from graph_builder import FLOATS
from random_models import random_model

HERE = Path(__file__).resolve().parent
SOURCES = "graph_builder.py", "neutral_nodes.py", "random_models.py", "agreement.py", "differential.py"
BATCH = 200
# Time limits in seconds: for a process that converts many models, per model and in addition; for one of a single model.
PATIENCE_PER_MODEL, PATIENCE, PATIENCE_TO_LOOK = 1, 60, 60
# Upper bound on the findings of each kind that are kept as files; all are listed by seed.
KEPT_FINDINGS = 100
# One in this many models is also looked at with --check, since each look takes a process of its own.
LOOKED_AT = 4
# A RAM disk for the files: the tool syncs what it writes, which on a real disk takes longer than all else.
IN_MEMORY = Path("/dev/shm")
VERIFICATION_FAILED, SOMETHING_TO_FUSE, LARGEST_EXIT_CODE = 3, 5, 8

# Kind of finding -> what it means.
KINDS = {
    "wrong-file": "a verified file computes something else",
    "wrong-file-unverified": "an unverified file (--no-verify) computes something else",
    "runs-no-more": "a verified file does not run where the old one did",
    "runs-no-more-unverified": "an unverified file does not run where the old one did",
    "invalid-fused": "a convolution with a kernel of another type than its input, which is not valid, is fused",
    "right-refused": "exit code 3, and the unverified file is right",
    "wrong-caught": "exit code 3, and the unverified file is wrong",
    "unjudged-refused": "exit code 3, and ONNX Runtime does not run the model",
    "valid-rejected": "another exit code than 0 or 3 for a model that ONNX Runtime runs",
    "crash": "a panic, or an exit code above 8, or a signal",
    "hang": "no end",
    "engine-ends": "ONNX Runtime ends the process on the old or the new file",
    "look-differs": "a look counts other blocks than a conversion",
    "check-differs": "--check says the opposite of what a conversion does",
    "second-differs": "a second conversion changes the file again",
    "wrong-words": "'nothing to fuse' of a file that changed, or 'fused' of one that did not",
}


# --- the tool ----------------------------------------------------------------------------------

class Tool:
    def __init__(self, path, folder):
        self.path, self.folder = str(path), folder
        self.count = 0

    def run(self, arguments, seconds):
        """Runs the tool; returns its exit code (negative: a signal; None: it did not end), stdout and stderr."""
        process = subprocess.Popen([self.path, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            out, err = process.communicate(timeout=seconds)
            return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return None, out.decode(errors="replace"), err.decode(errors="replace")

    def convert(self, jobs, *flags):
        """Converts the models of `jobs`, {seed: (input, output)}.

        Returns the reports, the printed lines, and the kind and reason of each crash or hang, all by seed.
        """
        reports, lines, broken = {}, {}, {}
        waiting = dict(jobs)
        while waiting:
            self.count += 1
            manifest, report = (self.folder / f"{name}{self.count}.jsonl" for name in ("manifest", "report"))
            manifest.write_text("".join(json.dumps({"input": str(a), "output": str(b)}) + "\n"
                                        for a, b in waiting.values()))
            code, out, err = self.run(["--manifest", manifest, "--report", report, "--threads", 1, *flags],
                                      PATIENCE + PATIENCE_PER_MODEL * len(waiting))
            said = lines_by_seed(out + err, waiting)
            ended_well = code is not None and 0 <= code <= LARGEST_EXIT_CODE and len(said) == len(waiting)
            if ended_well or len(said) == len(waiting):
                lines.update(said)
                for line in report.read_text().splitlines() if report.exists() else []:
                    entry = json.loads(line)
                    reports[seed_of(entry["input"]["path"])] = entry
            if ended_well:
                break
            guilty, kind, why = self.guilty([seed for seed in waiting if seed not in said] or list(waiting),
                                            waiting, flags, code, err)
            broken[guilty] = kind, why
            del waiting[guilty]
        return reports, lines, broken

    def guilty(self, silent, jobs, flags, code, err):
        """Returns the seed of the model that ended or hung the process, and the kind and reason of the finding.

        Candidates are the models without a line, `silent`, and each is tried alone: models are converted in order,
        but the line of one may be lost when the next one ends the process.
        """
        for seed in silent[:3]:
            report = self.folder / "alone.json"
            alone, _, said = self.run([*jobs[seed], "--report", report, "--threads", 1, *flags], PATIENCE_TO_LOOK)
            if alone is None or alone < 0 or alone > LARGEST_EXIT_CODE:
                return seed, "hang" if alone is None else "crash", f"exit code {alone}: {said.strip()[-300:]}"
        return silent[0], "hang" if code is None else "crash", f"not alone: exit code {code}: {err.strip()[-300:]}"

    def check(self, model):
        """Runs --check; returns its exit code, its report (None if there is none) and stderr."""
        report = self.folder / "check.json"
        report.unlink(missing_ok=True)
        code, _, err = self.run(["--check", model, "--report", report, "--threads", 1, "--quiet"], PATIENCE_TO_LOOK)
        return code, json.loads(report.read_text()) if report.exists() else None, err


def seed_of(path):
    return int(Path(path).stem)


def lines_by_seed(out, jobs):
    names = {str(source): seed for seed, (source, _) in jobs.items()}
    said = {}
    for line in out.splitlines():
        for word in line.split():
            if word.rstrip(":") in names:
                said.setdefault(names[word.rstrip(":")], line)
                break
    return said


# --- one batch -----------------------------------------------------------------------------------

class Finding(dict):
    """A finding as JSON: the seed, the kind, the reason, and the pieces that the model consists of."""

    def __init__(self, case, kind, why):
        super().__init__(seed=case.seed, kind=kind, why=" ".join(why.split())[:400], pieces=case.kinds)


class Original:
    """The old model, prepared for comparison; its runner is None if ONNX Runtime does not load it."""

    def __init__(self, case):
        self.case, self.problem = case, None
        self.model = onnx.ModelProto()
        self.model.CopyFrom(case.model)
        opset = opset_of(self.model)
        self.trains = any(trains(node, opset) for node in every_node(self.model))
        self.is_renamed = False
        try:
            self.runner = self.load()
        except NotRun as error:
            self.runner, self.problem = None, str(error)
        self.lazy_judge = None

    def load(self):
        if self.trains:
            self.model = deploy_form(self.model)
        try:
            return Runner(self.model.SerializeToString())
        except NotRun as error:
            if "same node name" not in str(error):
                raise
            self.is_renamed = True
            return Runner(without_node_names(self.model).SerializeToString())

    def judge(self):
        if self.lazy_judge is None:
            dtype = next(iter(self.case.feeds[0].values())).dtype
            self.lazy_judge = Judge(self.model, dtype)
        return self.lazy_judge

    def runner_of(self, path):
        """Returns a runner of the new file, prepared as the old model was (node names, dropouts, side file)."""
        if not (self.trains or self.is_renamed or self.case.is_beside):
            return Runner(path.read_bytes())
        model = onnx.load(path)
        model = without_node_names(model) if self.is_renamed else model
        return Runner((without_dropout(model) if self.trains else model).SerializeToString())

    def compare(self, path, counts):
        """Returns how the file at `path` differs from this model, or None if it does not.

        A difference is the number of the assignment, whether the new file runs there, and the reason.
        """
        try:
            new = self.runner_of(path)
        except NotRun as error:
            new = None
            problem = str(error)
        first = None
        for number, feeds in enumerate(self.case.feeds):
            try:
                if new is None:
                    self.runner(feeds)
                    return number, False, f"it is not loaded: {problem}"
                found = difference(self.runner, new, feeds, self.judge)
            except NotRun:
                counts["sizes at which the old model does not run"] += 1
                continue
            counts["sizes compared"] += 1
            if found and first is None:
                first = number, found.runs, f"at sizes {number}: {found.why}"
        return first


def do_batch(tool_path, seeds, state):
    """Returns counts and findings of a range of seeds; files of findings are kept in the folder `state`."""
    return try_models(tool_path, {seed: random_model(seed) for seed in seeds}, state)


def try_models(tool_path, cases, state=None):
    """Returns counts and findings of `cases`, {seed: case}; files are kept if a folder `state` is given."""
    counts, findings, seeds = Counter(), [], list(cases)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as name:
        folder = Path(name)
        for part in ("in", "verified", "unverified", "second"):
            (folder / part).mkdir()
        tool = Tool(tool_path, folder)
        for seed, case in cases.items():
            case.save(folder / "in" / f"{seed}.onnx")
        place = lambda part, seed: folder / part / f"{seed}.onnx"
        jobs = lambda a, b, of=seeds: {seed: (place(a, seed), place(b, seed)) for seed in of}
        verified = tool.convert(jobs("in", "verified"))
        unverified = tool.convert(jobs("in", "unverified"), "--no-verify")
        changed = [seed for seed in seeds if is_changed(folder, "unverified", seed)]
        second = tool.convert(jobs("unverified", "second", changed), "--no-verify")
        for seed, case in cases.items():
            found = judged(case, folder, tool, verified, unverified, second, counts)
            for finding in found if state else []:
                keep(finding, case, folder, state)
            findings += found
    return counts, findings


def is_changed(folder, part, seed):
    new, old = folder / part / f"{seed}.onnx", folder / "in" / f"{seed}.onnx"
    return new.exists() and new.read_bytes() != old.read_bytes()


def judged(case, folder, tool, verified, unverified, second, counts):
    """Returns the findings of one model and updates `counts`."""
    seed, found = case.seed, []
    counts["models"] += 1

    def find(kind, why):
        found.append(Finding(case, kind, why))

    for results, how in ((verified, "verified"), (unverified, "unverified"), (second, "second")):
        if seed in results[2]:
            kind, why = results[2][seed]
            find(kind, f"{how}: {why}")
    report, plain = verified[0].get(seed), unverified[0].get(seed)
    if report is None or plain is None:
        return found
    original = Original(case)
    runs = original.runner is not None
    counts["not loaded by ONNX Runtime"] += not runs
    count_outcome(report, is_changed(folder, "verified", seed), counts)

    differences = compare_files(original, folder, seed, find, counts)
    error = report["error"]
    if error and error["exit_code"] == VERIFICATION_FAILED:
        if not runs:
            find("unjudged-refused", error["message"])
        else:
            find("wrong-caught" if differences["unverified"] else "right-refused", error["message"])
    for one in (report, plain):
        if one["error"] and one["error"]["exit_code"] != VERIFICATION_FAILED and runs:
            find("valid-rejected", one["error"]["message"])
            break

    for results, part in ((verified, "verified"), (unverified, "unverified")):
        line = results[1].get(seed, "")
        if line.startswith("same") == is_changed(folder, part, seed) and not line.startswith("failed"):
            find("wrong-words", line)
    path = folder / "unverified" / f"{seed}.onnx"
    again = folder / "second" / f"{seed}.onnx"
    if again.exists() and again.read_bytes() != path.read_bytes():
        find("second-differs", second[1].get(seed, ""))
    if not plain["error"]:
        look(case, folder, tool, plain, find, counts)
    return found


def count_outcome(report, is_new, counts):
    error, run = report["error"], report["run"]
    if error:
        counts["refused by verification" if error["exit_code"] == VERIFICATION_FAILED else "other failures"] += 1
    elif report["blocks"]:
        counts["with a block fused"] += 1
        counts["of these, whole model run" if run and run["outcome"] != "not_run" else "of these, proved only"] += 1
    elif is_new:
        counts["changed without a block"] += 1
    else:
        counts["left alone"] += 1


def compare_files(original, folder, seed, find, counts):
    """Compares the verified and the unverified file with the original, once if the two are identical.

    Returns the difference of each, by how it was written: None if there is none.
    """
    differences, seen = {"verified": None, "unverified": None}, {}
    for part, suffix in (("verified", ""), ("unverified", "-unverified")):
        if not is_changed(folder, part, seed):
            continue
        path = folder / part / f"{seed}.onnx"
        if original.runner is None:
            gone = misfits(original.model) - misfits(onnx.load(path)) if not suffix else None
            if gone:
                find("invalid-fused", f"{gone}: {original.problem}")
            continue
        content = path.read_bytes()
        counts[f"files compared{', unverified' if suffix else ''}"] += content not in seen
        if content not in seen:
            seen[content] = original.compare(path, counts)
            if seen[content]:
                _, runs, why = seen[content]
                if original.case.lies and not runs:
                    # ONNX Runtime rejects wrong value_info if it notices it, which may be in the new file alone.
                    counts["value_info is wrong, and noticed in the new file alone"] += 1
                    continue
                find(("wrong-file" if runs else "runs-no-more") + suffix, why)
        differences[part] = seen[content]
    return differences


def misfits(model):
    """Returns convolutions whose kernel is stored in another type than the model computes in.

    Each is given by the names of its input, kernel and output.
    """
    computed_in = model.graph.output[0].type.tensor_type.elem_type
    others = {tensor.name for tensor in model.graph.initializer
              if tensor.data_type in FLOATS.values() and tensor.data_type != computed_in}
    return {(*node.input[:2], node.output[0]) for node in model.graph.node
            if node.op_type == "Conv" and node.input[1] in others}


def look(case, folder, tool, plain, find, counts):
    """Compares the exit code and the report of --check with what a conversion without verification did."""
    if case.seed % LOOKED_AT:
        return
    is_new = is_changed(folder, "unverified", case.seed)
    counts["looked at"] += 1
    code, report, err = tool.check(folder / "in" / f"{case.seed}.onnx")
    # The model was converted, so nothing but these can be said of it.
    if code not in (0, SOMETHING_TO_FUSE):
        find("hang" if code is None else "crash", f"--check: exit code {code}: {err.strip()[-300:]}")
        return
    if (code == SOMETHING_TO_FUSE) != is_new:
        find("check-differs", f"--check ends with {code}, and the file is {'changed' if is_new else 'the same'}")
    if report and len(report["blocks"]) != len(plain["blocks"]):
        find("look-differs", f"a look has {len(report['blocks'])} blocks, a conversion {len(plain['blocks'])}")


def keep(finding, case, folder, state):
    """Keeps the files of a finding, unless enough of its kind are kept."""
    kind = state / "findings" / finding["kind"]
    if kind.exists() and len(list(kind.iterdir())) >= KEPT_FINDINGS:
        return
    place = kind / str(case.seed)
    place.mkdir(parents=True, exist_ok=True)
    for part in ("in", "verified", "unverified", "second"):
        for path in (folder / part).glob(f"{case.seed}.onnx*"):
            target = place / (path.name if path.suffix == ".data" else f"{part}.onnx")
            shutil.copyfile(path, target)
    for number, feeds in enumerate(case.feeds):
        np.savez(place / f"inputs_{number}.npz", **{f"{i}": value for i, value in enumerate(feeds.values())})
    (place / "finding.json").write_text(json.dumps(finding | {"inputs": list(case.feeds[0])}, indent=1))


# --- the campaign ----------------------------------------------------------------------------------

def load_state(path, identity):
    if not path.exists():
        return {"identity": identity, "done": [], "counts": {}, "findings": []}
    state = json.loads(path.read_text())
    if state["identity"] != identity:
        sys.exit(f"{path} is of another tool or of other models: {state['identity']}; use another --state")
    return state


def save_state(path, state):
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(state))
    beside.replace(path)


def identity_of(tool):
    digest = lambda *paths: hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
    return {"tool": digest(Path(tool)), "models": digest(*(HERE / name for name in SOURCES))}


def campaign(tool, first, last, folder, jobs):
    """Tries the seeds that are not done yet, in batches, each in its own process: ONNX Runtime may end that."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "state.json"
    state = load_state(path, identity_of(tool))
    done = {seed for start, stop in state["done"] for seed in range(start, stop)}
    waiting = [batch for start in range(first, last, BATCH)
               for batch in runs_of(seed for seed in range(start, min(start + BATCH, last)) if seed not in done)]
    working = {}
    while waiting or working:
        while waiting and len(working) < jobs:
            batch = waiting.pop(0)
            ours, theirs = CONTEXT.Pipe(duplex=False)
            process = CONTEXT.Process(target=work, args=(theirs, tool, batch, folder))
            process.start()
            theirs.close()
            working[ours] = process, batch
        for connection in wait(list(working)):
            process, batch = working.pop(connection)
            try:
                counts, findings = connection.recv()
            except EOFError:
                counts, findings = None, None
            process.join()
            if counts is None and len(batch) > 1:
                middle = (batch.start + batch.stop) // 2
                waiting[:0] = [range(batch.start, middle), range(middle, batch.stop)]
                continue
            if counts is None:
                counts = Counter(["models"])
                why = f"exit code {process.exitcode} of a process that runs the old and the new file"
                findings = [Finding(random_model(batch.start), "engine-ends", why)]
            record(state, batch, counts, findings)
            save_state(path, state)
    return state


# Fresh processes: ONNX Runtime's threads do not survive a fork.
CONTEXT = get_context("spawn")


def work(connection, tool, batch, folder):
    """Tries a batch in a worker process, which exits if the campaign's process is stopped."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    connection.send(do_batch(tool, batch, folder))


def runs_of(seeds):
    """Groups ascending seeds into ranges of consecutive ones."""
    ranges = []
    for seed in seeds:
        if ranges and ranges[-1].stop == seed:
            ranges[-1] = range(ranges[-1].start, seed + 1)
        else:
            ranges.append(range(seed, seed + 1))
    return ranges


def record(state, batch, counts, findings):
    state["done"].append([batch.start, batch.stop])
    state["counts"] = dict(Counter(state["counts"]) + counts)
    state["findings"] += findings
    kinds = dict(Counter(finding["kind"] for finding in findings))
    print(f"{batch.start}:{batch.stop}  {len(findings)} findings {kinds}", flush=True)


def table(state):
    counts = state["counts"]
    lines = ["", "| what | how many |", "| --- | --- |"]
    lines += [f"| {name} | {number:,} |" for name, number in counts.items()]
    lines += ["", "| finding | how many | first seeds | pieces |", "| --- | --- | --- | --- |"]
    by_kind = {}
    for finding in state["findings"]:
        by_kind.setdefault(finding["kind"], []).append(finding)
    for kind, meaning in KINDS.items():
        found = sorted(by_kind.get(kind, []), key=lambda finding: finding["seed"])
        seeds = ", ".join(str(finding["seed"]) for finding in found[:6])
        pieces = Counter(piece for finding in found for piece in set(finding["pieces"])).most_common(3)
        pieces = ", ".join(f"{piece} {number}" for piece, number in pieces)
        lines.append(f"| {kind}: {meaning} | {len(found)} | {seeds} | {pieces} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True, help="the binary")
    parser.add_argument("--seeds", default="0:30000", help="FIRST:BEHIND")
    parser.add_argument("--state", type=Path, required=True, help="folder of what is done and what was found")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    arguments = parser.parse_args()
    first, last = map(int, arguments.seeds.split(":"))
    state = campaign(str(Path(arguments.tool).resolve()), first, last, arguments.state, arguments.jobs)
    print(table(state))
    sys.exit(1 if state["findings"] else 0)


if __name__ == "__main__":
    main()
