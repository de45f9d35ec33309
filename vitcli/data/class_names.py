"""Names of classes: as folders spell them, in natural order, and from a file."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vitcli.errors import DataError


def class_name(folder: str) -> str:
    """The class of a folder: valid text, in one spelling of accents (NFC)."""
    return unicodedata.normalize("NFC", valid_text(folder))


def valid_text(name: str) -> str:
    r"""The name of a file or folder as text that can be written anywhere: bytes that are not UTF-8 become `\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sorted, with numbers by value: 2 before 10."""

    def parts(name: str) -> list[tuple[int, int | str]]:
        return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]

    return sorted(names, key=lambda name: (parts(name), name))


def classes_of(labels: Sequence[str], file: Path | None) -> tuple[np.ndarray, list[str]]:
    """The class of each label (n,), and the names of the classes.

    If all labels are numbers, the classes are sorted by value, and numbers that are no names in `file`, the key
    `class_names`, stand for its lines, counted from 0. DataError if it has too few.
    """
    names = sorted({*labels})
    if names and all(map(str.isdecimal, names)):
        names.sort(key=int)
        listed = read_class_names(file) if file else []
        if listed and not {*names} <= {*listed}:
            if int(names[-1]) >= len(listed):
                message = f"class_names {os.fspath(file or '')!r} names {len(listed)} classes, and there is a number"
                raise DataError(f"{message} {names[-1]}", help="write one class per line; the first has the number 0")
            labels, names = [listed[int(label)] for label in labels], [listed[int(name)] for name in names]
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[label] for label in labels], dtype=np.int64), names


def without_names(num_outputs: int) -> list[str]:
    """What the outputs of a network are called whose classes have no names."""
    return [f"class {number}" for number in range(num_outputs)]


def named_outputs(file: Path, num_outputs: int) -> list[str]:
    """The classes in `file`, one for each output of a network; DataError if their number differs."""
    names = read_class_names(file)
    if len(names) != num_outputs:
        message = f"class_names {os.fspath(file)!r} names {len(names)} classes, the network has {num_outputs} outputs"
        raise DataError(message, help="write one line for each output, in their order")
    return names


def read_class_names(file: Path) -> list[str]:
    """The classes in a text file, one per line; line n is output n of the network. Empty lines do not count.

    Raises:
        DataError: the file cannot be read, is empty, or has a name twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file in UTF-8"
        raise DataError(f"class_names {os.fspath(file)!r} cannot be read: {reason}") from None
    names = [class_name(line.strip()) for line in lines if line.strip()]
    if not names:
        raise DataError(f"class_names {os.fspath(file)!r} is empty", help="write one class per line")
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(f"class_names {os.fspath(file)!r} has {twice[0]!r} twice", help="give each class its own name")
    return names
