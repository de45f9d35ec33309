"""A list that names the class of each image of a flat folder, as ImageNet's validation images come with.

ILSVRC2012_val_00000001.JPEG n01751748          file and class, or file and number of the class
ILSVRC2012_val_00000001,n01751748 85 1 499 272  Kaggle's: without suffix, followed by boxes
"""

import csv
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vitcli.data.class_names import class_name
from vitcli.errors import DataError

_KAGGLE = re.compile(r"(n\d{8})( -?\d+){4}")
#: class -> its images
Classes = dict[str, list[str]]


def read_label_list(file: Path, images: Iterable[str], classes: Sequence[str]) -> tuple[Classes, list[str]]:
    """Class -> its images, and notes.

    Args:
        file: one image per line: its name (the suffix may be missing), a comma or space, its class.
        images: their paths.
        classes: the names that numbers stand for, counted from 0; empty: numbers are names.

    Raises:
        DataError: the file cannot be read; a line has no class; an image does not exist or is named twice; or all
            classes are numbers, and one of them is too large.
    """
    lines = _lines(file)
    known = {path: path for path in images}
    stems = {os.path.splitext(path)[0]: path for path in known}
    found: dict[str, str] = {}
    for number, (name, label) in lines:
        path = known.get(name) or stems.get(name)
        if path is None and number == 1:  # a header
            continue
        if path is None or path in found:
            what = "is named twice" if path else "is not in the folder"
            raise DataError(f"{file}:{number}: {name!r} {what}", help="one line for each image: its file and its class")
        found[path] = class_name(label)
    notes = [f"{len(known) - len(found)} images are not in {file} and are left out"] if len(found) < len(known) else []
    if classes and not {*found.values()} & {*classes} and all(label.isdecimal() for label in found.values()):
        largest = max(map(int, found.values()), default=0)
        if largest >= len(classes):
            raise DataError(f"{file}: class {largest} of {len(classes)} classes", help="numbers are counted from 0")
        found = {path: classes[int(label)] for path, label in found.items()}
        notes.append(f"the numbers in {file} count the classes from 0: {classes[0]!r} is the first")
    by_class: Classes = {}
    for path in sorted(found):
        by_class.setdefault(found[path], []).append(path)
    return dict(sorted(by_class.items())), notes


def _lines(file: Path) -> list[tuple[int, tuple[str, str]]]:
    try:
        rows = [*enumerate(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()), start=1)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file in UTF-8"
        raise DataError(f"val_labels {os.fspath(file)!r} cannot be read: {reason}") from None
    lines = []
    for number, row in rows:
        fields = row if len(row) > 1 else (row[0].rsplit(maxsplit=1) if row else [])
        if not fields:
            continue
        if len(fields) == 1:
            raise DataError(f"{file}:{number}: no class after {fields[0]!r}", help="write the file, a space, its class")
        boxes = _KAGGLE.match(fields[1].strip())
        lines.append((number, (fields[0].strip(), boxes[1] if boxes else fields[1].strip())))
    return lines
