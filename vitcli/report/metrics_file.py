"""Reads metrics.jsonl of a run, whole or cut: what was logged while training, and what each evaluation found."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

Line = dict[str, Any]

# How log.Reporter begins a line. The thousands of training are only looked at when somebody asks.
_TRAIN = b'\n{"kind": "train"'
_VAL = b'\n{"kind": "val"'


@dataclass(frozen=True)
class Metrics:
    """The lines of one run, by step. A step that was logged twice counts as it was logged last."""

    val_lines: list[Line] = field(default_factory=list)  #: of evaluations: step, epoch, and numbers by name
    num_damaged: int = 0  #: lines that could not be read, of those that were looked at
    _text: bytes = b""  #: with the lines of training

    @cached_property
    def train_lines(self) -> list[Line]:
        """Of training: step, epoch, loss, lr, images_per_second, …"""
        return _by_step(filter(None, map(_line, _lines(self._text, _TRAIN))))

    @cached_property
    def first(self) -> Line:
        """The first line of any kind, or an empty one."""
        ends = [*islice(filter(None, map(_line, _lines(self._text, _TRAIN))), 1), *self.val_lines[:1]]
        return min(ends, key=lambda line: line["step"], default={})

    @cached_property
    def last(self) -> Line:
        """The last line of any kind, or an empty one; an evaluation follows the training of its step."""
        ends = [*self.val_lines[-1:], *islice(filter(None, map(_line, _lines_from_end(self._text, _TRAIN))), 1)]
        return max(ends, key=lambda line: line["step"], default={})


def read_metrics(path: Path) -> Metrics:
    """The lines of the file. The last line of a killed process may be cut short.

    Raises:
        OSError: it cannot be read.
    """
    whole, _, rest = path.read_bytes().rpartition(b"\n")
    text = b"\n" + whole
    if _line(rest):
        text += b"\n" + rest
    if text.count(_TRAIN) + text.count(_VAL) != text.count(b"\n"):
        return _read_each(text)
    return _of_kind_val([_line(line) for line in _lines(text, _VAL)], text)


def _read_each(text: bytes) -> Metrics:
    """The same where some lines are not as we write them."""
    read = [_line(line) for line in text.split(b"\n") if line.strip()]
    train = [json.dumps({"kind": "train"} | line).encode() for line in read if line and line.get("kind") == "train"]
    others = [line for line in read if line is None or line.get("kind") == "val"]
    return _of_kind_val(others, b"".join(b"\n" + line for line in train))


def _of_kind_val(read: list[Line | None], text: bytes) -> Metrics:
    return Metrics(_by_step(filter(None, read)), read.count(None), text)


def _lines(text: bytes, start: bytes) -> Iterator[bytes]:
    at = text.find(start)
    while at >= 0:
        end = text.find(b"\n", at + 1)
        yield text[at + 1 : end if end >= 0 else None]
        at = text.find(start, at + 1)


def _lines_from_end(text: bytes, start: bytes) -> Iterator[bytes]:
    at = text.rfind(start)
    while at >= 0:
        end = text.find(b"\n", at + 1)
        yield text[at + 1 : end if end >= 0 else None]
        at = text.rfind(start, 0, at)


def _line(text: bytes) -> Line | None:
    """The object in a line that has a step; None: it is damaged, or not ours."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def _by_step(lines: Iterable[Line]) -> list[Line]:
    """In rising order: a line drops earlier ones of the same or a later step, which a resumed run did again."""
    kept: list[Line] = []
    for line in lines:
        while kept and kept[-1]["step"] >= line["step"]:
            kept.pop()
        kept.append(line)
    return kept
