"""Runs the tool as a process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Any

from . import _binary, _inputs
from ._errors import Error, TimedOut, error_for
from ._options import words
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
        command = [str(_binary.find()), "--quiet", f"--report={report_file}", *flags, "--", *files]
        exit_code, output, complaint = _finish(command, model, options.get("timeout"))
        report = _read(report_file)
    if exit_code != 0:
        complaint = complaint.replace(f" {folder / _inputs.ARCHIVE}:", ":")
        raise error_for(exit_code, complaint or _signal(exit_code), report)
    if report is None:
        raise Error(f"{command[0]} wrote no report: it is of another version than this package", exit_code)
    return output, report


def _finish(
    command: Sequence[str], model: bytes | memoryview | None, timeout: float | None,
) -> tuple[int, bytes, str]:
    """Exit code, standard output and standard error of a command, which does not outlive this call."""
    stdin, environment = DEVNULL if model is None else PIPE, {**os.environ, **_PLAIN}
    with Popen(command, stdin=stdin, stdout=PIPE, stderr=PIPE, env=environment) as process:
        try:
            output, complaint = process.communicate(model, timeout)  # type: ignore[arg-type]  # any buffer
        except TimeoutExpired as late:
            _end(process)
            raise TimedOut(f"acb-fuse was ended, since it took longer than {timeout} s") from late
        except BaseException:
            _end(process)
            raise
    return process.returncode, output, complaint.decode(errors="replace").strip()


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
