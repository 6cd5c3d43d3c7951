"""`python -m acb_fuse` is `acb-fuse`."""

import os
import subprocess
import sys

from . import BinaryNotFound, find_binary


def main() -> int:
    """Becomes the tool; where a process cannot, runs it and returns its exit code."""
    try:
        command = [str(find_binary()), *sys.argv[1:]]
    except BinaryNotFound as problem:
        print(f"acb-fuse: {problem}", file=sys.stderr)
        return 127
    if os.name == "posix":
        os.execv(command[0], command)
    return subprocess.call(command)


sys.exit(main())
