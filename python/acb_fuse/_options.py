"""The options of `fuse` and `look`: as words of the command line, and the flags of its messages as options again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict, Union

StrPath = Union[str, "os.PathLike[str]"]


class Array(Protocol):
    """What NumPy can make an array of, such as a `torch.Tensor`."""

    def __array__(self) -> Any: ...


Progress = Callable[[str, "int | None", "int | None"], object]

Inputs = Union[StrPath, Mapping[str, Union[StrPath, Array]]]


class LookOptions(TypedDict, total=False):
    """Options of `look`, whose documentation says what they mean. None is as if an option were not given."""

    skip: Iterable[str] | None
    keep_overridable: bool | None
    growth: float | None
    keep_identity: Literal["auto", "always", "never"] | None
    for_: Literal["int8"] | None
    training_mode: Literal["auto", "convert", "keep"] | None
    follow_links: bool | None
    require_fusion: bool | None
    input_shapes: Mapping[str, Sequence[int]] | None
    report_html: StrPath | None
    threads: int | None
    timeout: float | None
    progress: Progress | None


class FuseOptions(LookOptions, total=False):
    """Options of `fuse`, whose documentation says what they mean. None is as if an option were not given."""

    equalize: bool | Literal["best", "exact"] | None
    inputs: Inputs | None
    verify: bool | Literal["onnxruntime"] | None
    require_run: bool | None
    samples: int | None
    seed: int | None
    tolerance: float | None
    verify_timeout: int | None
    verify_memory: int | None
    clobber: bool | None
    force: bool | None


def given(arguments: Mapping[str, Any], known: Any) -> dict[str, Any]:
    """Those of the arguments that are options and were given."""
    return {name: arguments[name] for name in known.__annotations__ if arguments[name] is not None}


# --- options as flags, and flags as options ------------------------------------------

class _Flag(Protocol):
    @property
    def flag(self) -> str: ...
    def words(self, value: Any) -> list[str]:
        """What the command line is given."""
    def told(self, name: str, text: str) -> tuple[str, str]:
        """What stands for the flag where `text` follows it in a message, and what is left of that text."""


@dataclass(frozen=True)
class _Switch:
    flag: str
    given_if: bool = True

    def words(self, value: object) -> list[str]:
        return [self.flag] if bool(value) == self.given_if else []

    def told(self, name: str, text: str) -> tuple[str, str]:
        return f"{name}={self.given_if}", text


@dataclass(frozen=True)
class _Value:
    flag: str
    values: str = r"\d[\d.]*"
    """What a value looks like in a message."""

    def words(self, value: object) -> list[str]:
        return [f"{self.flag}={value}"]

    def told(self, name: str, text: str) -> tuple[str, str]:
        value = re.match(rf" ({self.values})\b", text)
        if value is None:
            return name, text
        literal = value[1] if value[1][0].isdigit() else f'"{value[1]}"'
        return f"{name}={literal}", text[value.end():]


@dataclass(frozen=True)
class _Values:
    """A flag whose values no message repeats."""

    flag: str

    def words(self, value: Any) -> list[str]:
        return [f"{self.flag}={value}"]

    def told(self, name: str, text: str) -> tuple[str, str]:
        return name, text


class _Names(_Values):
    def words(self, value: str | Iterable[str]) -> list[str]:
        return [f"{self.flag}={name}" for name in ([value] if isinstance(value, str) else value)]


@dataclass(frozen=True)
class _Shapes:
    flag: str

    def words(self, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        return [f"{self.flag}={name}={','.join(map(str, shape))}" for name, shape in shapes.items()]

    def told(self, name: str, text: str) -> tuple[str, str]:
        shape = re.match(r" (\S+)=(\d+(?:,\d+)*)", text)
        if shape is None:
            return name, text
        sizes = shape[2].replace(",", ", ") + ("" if "," in shape[2] else ",")
        return f'{name}={{"{shape[1]}": ({sizes})}}', text[shape.end():]


class _Equalize(_Value):
    def words(self, how: object) -> list[str]:
        return [self.flag] if how is True else [f"{self.flag}={how}"] if how else []


class _Inputs(_Values):
    def words(self, value: StrPath | Mapping[str, StrPath]) -> list[str]:
        """One file or folder for all inputs, or a file for each."""
        if not isinstance(value, Mapping):
            return [f"{self.flag}={os.fsdecode(value)}"]
        return [f"{self.flag}={name}={os.fsdecode(file)}" for name, file in value.items()]


class _Report(_Values):
    def words(self, value: StrPath) -> list[str]:
        return [f"{self.flag}={os.fsdecode(value)}"]


_FLAGS: dict[str, _Flag] = {
    "skip": _Names("--skip"),
    "keep_overridable": _Switch("--keep-overridable"),
    "growth": _Value("--growth"),
    "keep_identity": _Value("--keep-identity", "auto|always|never"),
    "for_": _Value("--for", "int8"),
    "training_mode": _Value("--training-mode", "auto|convert|keep"),
    "follow_links": _Switch("--follow-links"),
    "require_fusion": _Switch("--require-fusion"),
    "input_shapes": _Shapes("--input-shape"),
    "report_html": _Report("--report"),
    "threads": _Value("--threads"),
    "equalize": _Equalize("--equalize", "best|exact"),
    "inputs": _Inputs("--input"),
    "verify": _Switch("--no-verify", given_if=False),
    "require_run": _Switch("--require-run"),
    "samples": _Value("--samples"),
    "seed": _Value("--seed"),
    "tolerance": _Value("--tolerance"),
    "verify_timeout": _Value("--verify-timeout"),
    "verify_memory": _Value("--verify-memory"),
    "clobber": _Switch("--no-clobber", given_if=False),
    "force": _Switch("--force"),
}


def words(options: Mapping[str, Any]) -> list[str]:
    """The options as words of the command line; `timeout` and `progress` are none of their own here."""
    return [word for name, value in options.items() if name in _FLAGS for word in _FLAGS[name].words(value)]


_OF_FLAG = {each.flag: name for name, each in _FLAGS.items()}
# A name of the model stands in backticks, and may be anything. In its messages of usage the command line quotes flags.
_MENTIONED = re.compile(r"`[^`]*`|'(?P<quoted>--[a-z][a-z-]*)[^']*'|(?P<flag>--[a-z][a-z-]*)")


def in_python(message: str) -> str:
    """A message of the command line, with options where it has flags."""
    told, rest = "", message
    while mentioned := _MENTIONED.search(rest):
        told, rest, found = told + rest[:mentioned.start()], rest[mentioned.end():], mentioned[0]
        name = _OF_FLAG.get(mentioned["quoted"] or mentioned["flag"] or "")
        if name is not None and mentioned["quoted"]:
            found = name
        elif name is not None:
            found, rest = _FLAGS[name].told(name, rest)
        told += found
    return told + rest
