"""Records what a binary does with every fixture, or compares another with the record.

    same_behaviour.py record  BINARY RECORD.json [FOLDER…]
    same_behaviour.py compare BINARY RECORD.json [FOLDER…]

For each model and each set of flags: the exit code, the messages, the bytes of the file
that is written, and the JSON and HTML reports without times. Folders are those of fixtures
and of further trained models; without any, `fixtures`.
"""

import concurrent.futures
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile

# Flags, whether a file is written, and the reports that are asked for.
RUNS = {
    "look": ([], False, ["json"]),
    "verbose look": (["-v"], False, []),
    "verified": ([], True, ["json", "html"]),
    "verified, no report": ([], True, []),
    "unverified": (["--no-verify"], True, ["json", "html"]),
    "strict": (["--no-verify", "--keep-overridable", "--training-mode=keep"], True, ["json"]),
    "training": (["--no-verify", "--training-mode=convert", "--require-fusion"], True, ["json"]),
    "check": (["--check"], False, ["json"]),
}

# The line of a page that tells where the time went.
SECONDS = re.compile(r"Seconds: read [^<]*")


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def behaviour(binary, model, run):
    flags, writes, reports = RUNS[run]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        command = [binary, str(model)] + ([str(folder / "out.onnx")] if writes else []) + flags
        for report in reports:
            command += ["--report", str(folder / f"report.{report}")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        hidden = lambda text: text.replace(str(folder), "FOLDER")
        found = {
            "exit": done.returncode,
            "out": hidden(done.stdout),
            "err": hidden(done.stderr),
            "files": {},
        }
        for path in sorted(folder.rglob("*")):
            data = path.read_bytes()
            if path.suffix == ".json":
                report = json.loads(hidden(data.decode()))
                report.pop("seconds")
                data = json.dumps(report, sort_keys=True, ensure_ascii=False).encode()
                # Kept whole, so that a difference can be shown.
                if len(data) < 20_000:
                    found["files"][path.name] = data.decode()
                    continue
            if path.suffix == ".html":
                data = SECONDS.sub("TIME", hidden(data.decode())).encode()
            found["files"][path.name] = digest(data)
        return found


def main():
    what, binary, record, *folders = sys.argv[1:]
    models = sorted(
        str(path) for folder in folders or ["fixtures"] for path in pathlib.Path(folder).rglob("*.onnx")
    )
    jobs = [(model, run) for model in models for run in RUNS]
    expected = json.loads(pathlib.Path(record).read_text()) if what == "compare" else {}
    found, differing = {}, 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for (model, run), new in zip(jobs, pool.map(lambda job: behaviour(binary, *job), jobs)):
            key = f"{model} | {run}"
            found[key] = new
            old = expected.get(key, new)
            for part in new:
                if new[part] != old[part]:
                    differing += 1
                    print(f"{key}: {part}\n  old {old[part]!r:.1500}\n  new {new[part]!r:.1500}", flush=True)
    if what == "record":
        pathlib.Path(record).write_text(json.dumps(found, ensure_ascii=False))
    unknown = [key for key in found if what == "compare" and key not in expected]
    print(f"{len(found)} runs, {len(unknown)} not on record, {differing} differences")
    return 1 if differing or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
