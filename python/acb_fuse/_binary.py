"""Where the tool is."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Iterator
from os import name as system
from pathlib import Path

from ._errors import BinaryNotFound


def find() -> Path:
    """The `acb-fuse` that was installed with this package; failing that, the first one on PATH.

    Raises `BinaryNotFound` if there is none.
    """
    for folder in _script_folders():
        binary = folder / f"acb-fuse{sysconfig.get_config_var('EXE') or ''}"
        if binary.is_file():
            return binary
    on_path = shutil.which("acb-fuse")
    if on_path is None:
        raise BinaryNotFound("acb-fuse is neither where Python's scripts are nor on PATH: pip install acb-fuse")
    return Path(on_path)


def _script_folders() -> Iterator[Path]:
    """Where pip puts programs: into the environment, with `--target`, with `--user`."""
    yield Path(sysconfig.get_path("scripts"))
    yield Path(sys.executable).parent
    yield Path(__file__).parent.parent / "bin"
    yield Path(sysconfig.get_path("scripts", f"{system}_user"))
