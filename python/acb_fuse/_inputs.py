"""Tensors to run the models on, where they are in memory: as an archive that the tool reads."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from ._options import Array, Inputs, StrPath

ARCHIVE = "inputs.npz"


def written(inputs: Inputs, folder: Path) -> list[StrPath | Mapping[str, StrPath]]:
    """What `inputs=` stands for, in files alone: arrays become an archive in `folder`."""
    if not isinstance(inputs, Mapping):
        return [inputs]
    files = {name: value for name, value in inputs.items() if isinstance(value, (str, os.PathLike))}
    arrays = {name: cast(Array, value) for name, value in inputs.items() if name not in files}
    if not arrays:
        return [files]
    _save(arrays, folder / ARCHIVE)
    return [files, folder / ARCHIVE]


def _save(arrays: Mapping[str, Array], archive: Path) -> None:
    """As `numpy.savez` does, which takes no array called `file`."""
    with zipfile.ZipFile(archive, "w") as file:
        for name, array in arrays.items():
            file.writestr(f"{name}.npy", _npy(name, array))


def _npy(name: str, array: Array) -> bytes:
    """An array as NumPy saves it, in the order of bytes that all files have."""
    import numpy

    try:
        plain: Any = numpy.asarray(array)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise TypeError(f"inputs[{name!r}] is neither a path nor an array: {problem}") from problem
    if plain.dtype.byteorder == ">":
        plain = plain.astype(plain.dtype.newbyteorder("<"))
    if plain.dtype.hasobject:
        raise TypeError(f"inputs[{name!r}] is no array of numbers, but of {plain.dtype}")
    saved = BytesIO()
    numpy.save(saved, plain, allow_pickle=False)
    return saved.getvalue()
