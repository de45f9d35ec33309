"""Reads metrics.jsonl of a run, whole or cut: what was logged while training, and what each evaluation found."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

Line = dict[str, Any]

#: how log.Reporter begins a line of training; thousands of them are only looked at when somebody asks
_TRAIN = b'{"kind": "train"'


@dataclass(frozen=True)
class Metrics:
    """The lines of one run, by step. A step that was logged twice counts as it was logged last."""

    val_lines: list[Line] = field(default_factory=list)  #: of evaluations: step, epoch, and numbers by name
    num_damaged: int = 0  #: lines that could not be read
    _train: list[bytes] = field(default_factory=list)

    @cached_property
    def train_lines(self) -> list[Line]:
        """Of training: step, epoch, loss, lr, images_per_second, …"""
        return _by_step(filter(None, map(_line, self._train)))

    @property
    def first(self) -> Line:
        """The first line of any kind, or an empty one."""
        return min(self._ends(self._train, self.val_lines), key=lambda line: line["step"], default={})

    @property
    def last(self) -> Line:
        """The last line of any kind, or an empty one; an evaluation follows the training of its step."""
        return max(self._ends(self._train[::-1], self.val_lines[::-1])[::-1], key=lambda line: line["step"], default={})

    def _ends(self, train: list[bytes], val: list[Line]) -> list[Line]:
        return [*islice(filter(None, map(_line, train)), 1), *val[:1]]


def read_metrics(path: Path) -> Metrics:
    """The lines of the file. The last line of a killed process may be cut short.

    Raises:
        OSError: it cannot be read.
    """
    *lines, rest = path.read_bytes().split(b"\n")
    train = [line for line in lines if line.startswith(_TRAIN)]
    others = [line for line in lines if line.strip() and not line.startswith(_TRAIN)]
    if rest:
        (train if _line(rest) and rest.startswith(_TRAIN) else others).append(rest)
    read = list(map(_line, others))
    damaged = read.count(None) - (bool(rest) and _line(rest) is None)
    found = [line for line in read if line]
    train += [json.dumps(line).encode() for line in found if line.get("kind") == "train"]
    return Metrics(_by_step(line for line in found if line.get("kind") == "val"), damaged, train)


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
