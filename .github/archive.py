"""Makes an archive of the tool from its wheel, for users without Python.

    python .github/archive.py WHEEL ARCHIVE        ends with .tar.gz or .zip

The archive holds the wheel's program, the licences of the tool and of all crates it is made of, and the bill of
materials.
"""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

# Folders of a wheel with the program, the licences and the bill of materials.
_FOLDERS = ("scripts", "licenses", "sboms")
_EXECUTABLE, _PLAIN = 0o755, 0o644


def contents(wheel: Path) -> dict[str, tuple[bytes, int]]:
    """Returns, by name, the bytes and permissions of the files that go into the archive."""
    files = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = PurePosixPath(name)
            folder = next((each for each in _FOLDERS if each in path.parts), None)
            if folder is not None and not name.endswith("/"):
                mode = _EXECUTABLE if folder == "scripts" else _PLAIN
                files[path.name] = (archive.read(name), mode)
    missing = {"LICENSE-APACHE", "LICENSE-MIT", "third_party.txt", "acb-fuse.cdx.json"} - files.keys()
    if missing or not files.keys() & {"acb-fuse", "acb-fuse.exe"}:
        raise SystemExit(f"{wheel} lacks {', '.join(sorted(missing)) or 'the program'}: see docs/publishing.md")
    return files


def write(files: dict[str, tuple[bytes, int]], target: Path) -> None:
    """Writes all files into one folder, sorted, without user and time: the same wheel makes the same archive."""
    folder = target.name.removesuffix(".zip").removesuffix(".tar.gz")
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, (data, _) in sorted(files.items()):
                archive.writestr(zipfile.ZipInfo(f"{folder}/{name}"), data, zipfile.ZIP_DEFLATED)
        return
    with gzip.GzipFile(target, "wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tarred:
        for name, (data, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode = len(data), mode
            tarred.addfile(entry, io.BytesIO(data))


def main() -> None:
    wheel, target = map(Path, sys.argv[1:])
    write(contents(wheel), target)


if __name__ == "__main__":
    main()
