"""What can go wrong: one class for each exit code of the tool."""

from __future__ import annotations

from typing import ClassVar

from ._report import Report


class Error(Exception):
    """Nothing was written. `str` of it names the file and what is wrong; `report` is there if the tool came that far.

    Where the process was ended from outside (`Ended`, `TimedOut`), the old file or the whole new one is in place.
    """

    may_retry: ClassVar[bool] = False
    """Whether the same call may succeed later, or on another machine."""

    def __init__(self, message: str, exit_code: int | None = None, report: Report | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.report = report

    def __reduce__(self) -> tuple[type[Error], tuple[str, int | None, Report | None]]:
        """An error can be pickled, and so cross to another process."""
        return type(self), (self.message, self.exit_code, self.report)


class InvalidModel(Error):
    """The model is malformed."""


class UsageError(Error):
    """An option has no meaning for this model, or for the installed version."""


class VerificationFailed(Error):
    """A block, the new file or an output of the whole model is not what it was."""


class NothingFused(Error):
    """There was nothing to fuse, and `require_fusion` was given."""


class FileError(Error):
    """A file cannot be found, opened, or put where it is asked to go."""


class ReadWriteError(Error):
    """Reading or writing failed in passing: a full disk, or a file that changed meanwhile."""

    may_retry = True


class NotRun(Error):
    """The whole model could not be run, and `require_run` was given; or the engine did not end in time."""


class Ended(Error):
    """Something else ended the process: a signal, or the system for want of memory."""

    may_retry = True


class TimedOut(Error):
    """The process took longer than `timeout` and was ended."""


class BinaryNotFound(Error):
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


def error_for(exit_code: int, message: str, report: Report | None) -> Error:
    """What an exit code other than 0 means; one below 0 is a signal's, as `subprocess` has it."""
    kind = Ended if exit_code < 0 else _BY_EXIT_CODE.get(exit_code, Error)
    if report is not None and report.error is not None:
        message = report.error.message
    # A model that came through a pipe has no name to be told.
    message = message.removeprefix("acb-fuse: ").removeprefix("-: ")
    return kind(message or f"acb-fuse ended with exit code {exit_code}", exit_code, report)
