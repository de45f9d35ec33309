"""The split of a data set as a table: which image is in which part. Next to its images it can be read as one.

A spreadsheet that opens it computes nothing: see `spreadsheet.py`. `table.py` reads the same names from it.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vitcli.data.class_names import valid_text
from vitcli.data.source import Source
from vitcli.data.spreadsheet import cell_of

#: a table with these columns, and no others, is taken for a split list
COLUMNS = ("image", "class", "split")


#: the name and the classes of an image, and the part that it is in
Row = tuple[str, list[str], str]


def write_split_list(file: Path, rows: Iterable[Row]) -> None:
    """Write `split_list` to `file`."""
    file.write_text(split_list(rows), encoding="utf-8", newline="")


def split_list(rows: Iterable[Row]) -> str:
    """A CSV of the name, class ("" without labels) and part of each image."""
    lines = io.StringIO(newline="")
    table = csv.writer(lines)
    table.writerow(COLUMNS)
    table.writerows((cell_of(valid_text(image)), cell_of(_in_words(labels)), part) for image, labels, part in rows)
    return lines.getvalue()


def rows_of(parts: Mapping[str, Source]) -> Iterator[Row]:
    """The rows of parts by name, in their order."""
    for part, source in parts.items():
        for index in range(len(source)):
            yield source.name(index), source.labels(index), part


def _in_words(labels: list[str]) -> str:
    """The class of an image; of several, or of one that looks like several, a JSON list."""
    name = "".join(labels[:1])
    if len(labels) < 2 and ";" not in name and not name.startswith("[") and name == name.strip():
        return name
    return json.dumps(labels, ensure_ascii=False)
