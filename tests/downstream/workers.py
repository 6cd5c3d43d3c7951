"""An environment per engine, and a process per engine that may crash or hang."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

WORKER = Path(__file__).resolve().parent / "worker.py"
JOB_SECONDS = 180


def environment(folder: Path, requirements: Path) -> Path:
    """Returns the Python of an environment with these packages, which is made anew if they change."""
    stamp, wanted = folder / "requirements.txt", requirements.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "-r", requirements], check=True)
        stamp.write_text(wanted)
    return folder / "bin" / "python"


class Worker:
    """A process of `worker.py` for one engine, started on demand, restarted after a crash, and killed if it hangs."""

    def __init__(self, python: Path, engine: str, scratch: Path) -> None:
        self.command = [str(python), str(WORKER), engine]
        self.scratch = scratch / engine
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.end()

    def ask(self, **job: object) -> dict[str, Any]:
        """Sends a job and returns the answer, or `{"error": …}`."""
        process = self.process = self.process or self.started()
        questions, answers = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        questions.write(json.dumps(job, default=str) + "\n")
        questions.flush()
        ready, _, _ = select.select([answers], [], [], JOB_SECONDS)
        line = answers.readline() if ready else ""
        if line:
            return cast("dict[str, Any]", json.loads(line))
        # Without a line, the process is about to exit, or it hangs.
        error = f"crash, exit code {process.wait()}" if ready else f"no answer in {JOB_SECONDS} seconds"
        self.end()
        return {"error": error}

    def started(self) -> subprocess.Popen[str]:
        self.scratch.mkdir(parents=True, exist_ok=True)
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                text=True, cwd=self.scratch, env=variables)

    def end(self) -> None:
        """Ends the process and deletes its folder, in which a converter may have left files."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
        shutil.rmtree(self.scratch, ignore_errors=True)
