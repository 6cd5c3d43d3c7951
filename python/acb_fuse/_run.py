"""Runs the tool as a process."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from threading import Thread
from typing import IO, Any

from . import _binary, _inputs
from ._errors import Error, TimedOut, error_for
from ._options import Progress, words
from ._report import Report

_SECONDS_TO_CLEAN_UP = 5
# Notebooks ask for colours, which are none in a message.
_PLAIN = {"NO_COLOR": "1", "CLICOLOR": "0", "CLICOLOR_FORCE": "0"}


def run(files: Sequence[str], options: Mapping[str, Any], model: bytes | memoryview | None) -> tuple[bytes, Report]:
    """Runs `acb-fuse` on these files with `model` as its standard input: its standard output, and its report.

    Raises the `Error` that its exit code stands for.
    """
    with TemporaryDirectory(prefix="acb-fuse-") as name:
        folder = Path(name)
        report_file = folder / "report.json"
        flags = words({name: value for name, value in options.items() if name != "inputs"})
        for inputs in _inputs.written(options["inputs"], folder) if "inputs" in options else []:
            flags += words({"inputs": inputs})
        progress = options.get("progress")
        flags += ["--progress"] if progress else []
        command = [str(_binary.find()), "--quiet", f"--report={report_file}", *flags, "--", *files]
        exit_code, output, complaint = _finish(command, model, options.get("timeout"), progress)
        report = _read(report_file)
    if exit_code != 0:
        complaint = complaint.replace(f" {folder / _inputs.ARCHIVE}:", ":")
        raise error_for(exit_code, complaint or _signal(exit_code), report)
    if report is None:
        raise Error(f"{command[0]} wrote no report: it is of another version than this package", exit_code)
    return output, report


def _finish(
    command: Sequence[str], model: bytes | memoryview | None, timeout: float | None, progress: Progress | None,
) -> tuple[int, bytes, str]:
    """Exit code, standard output and standard error of a command, which does not outlive this call."""
    stdin, environment = DEVNULL if model is None else PIPE, {**os.environ, **_PLAIN}
    with Popen(command, stdin=stdin, stdout=PIPE, stderr=PIPE, env=environment) as process:
        said = _Said(process.stderr, progress)
        # Of two who read one stream, each would have a part.
        process.stderr = None
        said.start()
        try:
            output, _ = process.communicate(model, timeout)  # type: ignore[arg-type]  # any buffer
        except TimeoutExpired as late:
            _end(process)
            raise TimedOut(f"acb-fuse took longer than {timeout} s and was stopped") from late
        except BaseException:
            _end(process)
            raise
    return process.returncode, output, said.complaint()


class _Said(Thread):
    """Reads what the tool says on standard error, and hands on how far it is."""

    _PROGRESS = re.compile(r"progress: (\w+)(?: (\d+)/(\d+))?")

    def __init__(self, stream: IO[bytes] | None, progress: Progress | None) -> None:
        super().__init__(daemon=True)
        self._stream, self._progress = stream, progress
        self._lines: list[str] = []
        self._failed: BaseException | None = None

    def run(self) -> None:
        if self._stream is None:
            return
        with self._stream:
            for line in self._stream:
                text = line.decode(errors="replace")
                told = self._PROGRESS.fullmatch(text.rstrip()) if self._progress else None
                if told is None:
                    self._lines.append(text)
                elif self._failed is None:
                    self._tell(told)

    def _tell(self, told: re.Match[str]) -> None:
        done, of_all = (None, None) if told[2] is None else (int(told[2]), int(told[3]))
        try:
            if self._progress:
                self._progress(told[1], done, of_all)
        except BaseException as failure:  # noqa: BLE001  # it is raised where the caller waits
            self._failed = failure

    def complaint(self) -> str:
        """All that was said but how far it is. Raises what `progress` raised."""
        self.join()
        if self._failed is not None:
            raise self._failed
        return "".join(self._lines).strip()


def _end(process: Popen[bytes]) -> None:
    """Lets the process remove its temporary files; then there is no more asking."""
    process.terminate()
    try:
        process.wait(_SECONDS_TO_CLEAN_UP)
    except TimeoutExpired:
        process.kill()


def _read(report: Path) -> Report | None:
    """A report, if there is one, and it is whole."""
    try:
        return Report.parse(json.loads(report.read_bytes()))
    except (OSError, ValueError):
        return None


def _signal(exit_code: int) -> str:
    """What is to be said of a process that could not say anything."""
    return f"acb-fuse was ended by signal {-exit_code}: {signal.strsignal(-exit_code)}" if exit_code < 0 else ""
