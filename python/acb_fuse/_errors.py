"""What can go wrong: one class for each exit code of the tool."""

from __future__ import annotations

import re
from typing import ClassVar

from ._options import in_python
from ._report import Report


class Error(Exception):
    """`str` of it names the file and what is wrong; `report` is there if the tool came that far.

    No incomplete file is left, and the target holds what it held before; except that after `Ended` or `TimedOut` it is
    either the old file or the complete new one, and that the new model is in place if only a report could not be
    written, or the input changed while `verify="onnxruntime"` ran.
    """

    may_retry: ClassVar[bool] = False
    """Whether the same call may succeed later, or on another machine."""

    def __init__(self, message: str, exit_code: int | None = None, report: Report | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.report = report

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[Error], tuple[str, int | None, Report | None]]:
        """An error can be pickled, and so cross to another process."""
        return type(self), (self.message, self.exit_code, self.report)


class InvalidModel(Error, ValueError):
    """The model is malformed."""


class UsageError(Error, ValueError):
    """An option has no meaning for this model, or for the installed version."""


class VerificationFailed(Error):
    """A block, the new file or an output of the whole model is not what it was."""


class NothingFused(Error, ValueError):
    """There was nothing to fuse, and `require_fusion` was given."""


class _OfSystem(Error, OSError):
    """What the system said; `errno` is its number, if it is known."""

    def __init__(self, message: str, exit_code: int | None = None, report: Report | None = None) -> None:
        super().__init__(message, exit_code, report)
        self.errno = _number(message)


class FileError(_OfSystem):
    """A file cannot be found, opened, or put where it is asked to go."""


class MissingFile(FileError, FileNotFoundError):
    """There is no such file."""


class ForbiddenFile(FileError, PermissionError):
    """The system does not allow it."""


class ExistingFile(FileError, FileExistsError):
    """There is a file already, and `clobber=False` was given."""


class ReadWriteError(_OfSystem):
    """Reading or writing failed in passing: a full disk, or a file that changed meanwhile."""

    may_retry = True


class NotRun(Error):
    """The whole model could not be run, and `require_run` was given; or the engine did not end in time."""


class Ended(Error):
    """Something else ended the process: a signal, or the system for want of memory."""

    may_retry = True


class TimedOut(Error, TimeoutError):
    """The process took longer than `timeout` and was ended."""


class BinaryNotFound(Error, FileNotFoundError):
    """The tool is not installed."""


_INTERRUPTED = 130
_BY_EXIT_CODE: dict[int, type[Error]] = {
    1: InvalidModel,
    2: UsageError,
    3: VerificationFailed,
    4: NothingFused,
    6: ReadWriteError,
    7: NotRun,
    8: FileError,
    _INTERRUPTED: Ended,
}
# The numbers of the system, of POSIX and of Windows, and what is said where the system is not asked.
_OF_FILES: tuple[tuple[str, type[FileError]], ...] = (
    (r"\(os error [23]\)", MissingFile),
    (r"\(os error (1|5|13)\)", ForbiddenFile),
    (r"it exists already|\(os error (17|80|183)\)", ExistingFile),
)


def error_for(exit_code: int, message: str, report: Report | None) -> Error:
    """What an exit code other than 0 means; one below 0 is a signal's, as `subprocess` has it."""
    kind = Ended if exit_code < 0 else _BY_EXIT_CODE.get(exit_code, Error)
    # A report has the message already, in words of Python.
    told = in_python(_first_paragraph(message)) if report is None or report.error is None else report.error.message
    # A model that came through a pipe has no name to be told.
    told = told.removeprefix("acb-fuse: ").removeprefix("-: ") or f"acb-fuse ended with exit code {exit_code}"
    if kind is FileError:
        kind = next((each for pattern, each in _OF_FILES if re.search(pattern, told)), FileError)
    return kind(told, exit_code, report)


def _first_paragraph(message: str) -> str:
    """The command line says what is wrong with its words, and then how it is used."""
    if not message.startswith("error: "):
        return message
    return " ".join(message.removeprefix("error: ").partition("\n\n")[0].split())


def _number(message: str) -> int | None:
    """The system's number of what is wrong."""
    number = re.search(r"\(os error (\d+)\)", message)
    return int(number[1]) if number else None
