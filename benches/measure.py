"""Runs a command as a new process and measures its time and memory."""

import os
import resource
import signal
import time
from dataclasses import dataclass
from threading import Timer


@dataclass
class Usage:
    """Wall and CPU time in seconds, peak resident memory in bytes, and why the command failed, if it did."""
    wall: float
    cpu: float
    peak: int
    problem: str | None


def run(command, log, limit):
    """Runs `command` with its output in the file `log`, ends it after `limit` seconds, and returns its usage."""
    command = [str(word) for word in command]
    with open(log, "w") as output:
        streams = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                   *((os.POSIX_SPAWN_DUP2, output.fileno(), stream) for stream in (1, 2))]
        start = time.perf_counter()
        process = os.posix_spawnp(command[0], command, os.environ, file_actions=streams, setpgroup=0)
        timer = Timer(limit, os.killpg, (process, signal.SIGKILL))
        timer.start()
        try:
            _, status, usage = os.wait4(process, 0)
        except BaseException:
            os.killpg(process, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        wall = time.perf_counter() - start
    exit_code = os.waitstatus_to_exitcode(status)
    return Usage(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, problem(exit_code, wall, limit, log))


def smallest_peak():
    """Returns the peak memory of this process in bytes, which Linux counts into the peak of each command it starts.

    So the process that measures must not import anything large.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def problem(exit_code, wall, limit, log):
    if exit_code == 0:
        return None
    if wall >= limit:
        return f"ended after {limit:.0f} s"
    if exit_code < 0:
        return f"died of {signal.Signals(-exit_code).name}"
    with open(log, errors="replace") as output:
        lines = output.read().split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"exit code {exit_code}: {last[:100]}"
