"""Images listed in a table: CSV or TSV, JSON Lines, or Parquet, with a column of files and one of classes.

    data_dir/train.csv  data_dir/val.csv     one table for each split
    data_dir                                 one table, with a column `split` or with val_ratio or val_fold

    image_path,label,split
    scans/1.png,healthy,train

Paths are relative to the folder of the table. The columns may have other names, see `IMAGE` and `LABEL`. Images with
the same value in a column `group` stay in one part of val_ratio or val_fold.

If a row has several labels or none, the table is multi-label data. Several labels are a list, or a field of text:

    beach.png,sea;person        separated by `label_separator`
    beach.png,"[""sea""]"       or JSON
    beach.png,sea               or one row for each
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vitcli.data.class_names import class_name
from vitcli.data.file_kinds import TABLES
from vitcli.data.source import MissingSplit, Source
from vitcli.data.sources.folder import FolderImages
from vitcli.data.split_list import COLUMNS
from vitcli.data.spreadsheet import text_of_cell
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset

#: names of the columns, the first that exists counts
IMAGE = ("image_path", "image", "file_name", "filename", "filepath", "file", "path")
LABEL = ("label", "class", "class_name", "target", "category", "labels", "classes", "tags")
SPLIT, GROUP = "split", "group"

Row = Mapping[str, Any]
#: a row and its number in the file
Rows = Iterator[tuple[int, Row]]


class TableImages(FolderImages):
    """Images that `table` lists, without labels.

    Args:
        lines: image -> its last line in the table.
    """

    def __init__(self, table: Path, lines: Mapping[str, int], *, max_image_pixels: int, notes: list[str]) -> None:
        paths = sorted(lines)
        super().__init__(table.parent, paths, max_image_pixels=max_image_pixels, notes=notes)
        self.table, self.lines = table, np.array([lines[path] for path in paths], dtype=np.int64)

    def label_place(self, index: int) -> str:
        return f"{self.table}:{self.lines[self.rows[index]]}"


def open_table(section: Dataset, split: str, needs_labels: bool = True) -> Source:
    """The images of a split, in the table or tables of `section.data_dir`.

    Raises:
        MissingSplit: there is no table for this split, or no row of it.
        DataError: a table cannot be read, lacks a column or a path, or names an image that does not exist.
        UsageError: no data_dir.
    """
    file, wanted = _find_table(section, split)
    rows = [(number, row) for number, row in _rows(file) if wanted is None or row.get(SPLIT) in wanted]
    if not rows:
        raise MissingSplit(f"{file} has no rows of the split {wanted[0] if wanted else split!r}", help=_ADVICE)
    image, label = _column(file, rows[0][1], IMAGE), _column(file, rows[0][1], LABEL, required=needs_labels)
    labels: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    groups: dict[str, str] = {}
    for number, row in rows:
        path = _value(file, number, row, image)
        found = _labels(file, number, row, label, section.label_separator) if label else []
        labels[path] = list(dict.fromkeys([*labels.get(path, ()), *found]))
        lines[path] = number
        if row.get(GROUP) not in (None, ""):
            groups[path] = str(row[GROUP])
    _check_files(file, lines)
    notes = _other_separator(file, {name for names in labels.values() for name in names}, section.label_separator)
    if len(lines) < len(rows):
        again = len(rows) - len(lines)
        notes.append(f"{file}: {again:,} rows name an image again; the labels of its rows are put together")
    images = TableImages(file, lines, max_image_pixels=section.max_image_pixels, notes=notes)
    if groups:
        images.groups = [groups.get(images.name(index), images.name(index)) for index in range(len(images))]
    if not any(labels.values()):
        if needs_labels:
            raise DataError(f"{file}: no image has a value in the column {label!r}", help="fill it in")
        return images
    labeled = images.labeled([labels[path] for path in sorted(labels)])
    return labeled if labeled.multi_label else labeled.select(np.argsort(labeled.strata(), kind="stable"))


def _other_separator(file: Path, names: set[str], separator: str | None) -> list[str]:
    """A note if most labels contain a character that often separates labels."""
    for other in ",;|":
        containing = sum(other in name for name in names)
        if other != separator and containing > len(names) / 2:
            said = f"{file}: {containing:,} of {len(names):,} classes contain {other!r}"
            return [f"{said}; if it separates labels, give --label_separator '{other}'"]
    return []


_ADVICE = "hold a part of the rows out for validation: --val_ratio 0.2, or add a column `split` with train and val"


def _find_table(section: Dataset, split: str) -> tuple[Path, tuple[str, ...] | None]:
    """The table of a split, and the values of its column `split` that belong to it; None: all rows do."""
    where, suffixes = section.data_dir, TABLES[section.dataset]
    if where is None or not where.exists():
        reason = "needs a table" if where is None else f"cannot be read: {os.fspath(where)!r} does not exist"
        help = f"give --data_dir: a file that ends in {' or '.join(suffixes)}, or a folder with one for each split"
        raise (UsageError if where is None else DataError)(f"the data set {section.dataset!r} {reason}", help=help)
    name = section.train_split if split == "train" else section.val_split
    names = (name, "validation") if name == "val" else (name,)
    if where.is_dir():
        files = [name + suffix for name in names for suffix in suffixes]
        found = [where / file for file in files if (where / file).is_file()]
        if not found:
            message = f"there is no {' or '.join(files)} in {where}"
            raise MissingSplit(message, help="add it, or give one table: --data_dir FILE")
        return found[0], None
    has_splits = SPLIT in next(iter(_rows(where)), (0, {}))[1]
    if has_splits:
        return where, names
    if split == "val":
        raise MissingSplit(f"{where} has no column `split`", help=_ADVICE)
    return where, None


def _rows(file: Path) -> Rows:
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".parquet": _parquet_rows}
    try:
        yield from readers.get(file.suffix, _json_rows)(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{file} cannot be read: {reason}", help="tables are text in UTF-8, or Parquet") from None


def _csv_rows(file: Path) -> Rows:
    """Columns are separated by tabs in .tsv, otherwise by what separates the names of the columns: , ; or a tab."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        header = lines.readline()
        delimiter = "\t" if file.suffix == ".tsv" else max(",;\t", key=header.count)
        names = next(csv.reader([header], delimiter=delimiter), [])
        text = text_of_cell if tuple(names) == COLUMNS else str
        for fields in (reader := csv.reader(lines, delimiter=delimiter)):
            if len(fields) == len(names):
                yield reader.line_num + 1, dict(zip(names, map(text, fields), strict=True))
            elif fields:
                message = f"{file}:{reader.line_num + 1}: {len(fields)} fields, {len(names)} columns"
                raise DataError(message, help='quote a field that contains the separator: "a, b"')


def _json_rows(file: Path) -> Rows:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise DataError(
                    f"{file}:{number}: not a JSON object", help='write one per line: {"image": …, "label": …}'
                )
            yield number, row


def _parquet_rows(file: Path) -> Rows:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError("Parquet files need pyarrow", help="pip install 'vitcli[parquet]'") from None
    try:
        with pq.ParquetFile(file) as table:
            _check_paths(file, table.schema_arrow)
            number = 0
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowInvalid as error:
        raise DataError(f"{file} cannot be read: {str(error).splitlines()[0]}") from None


def _check_paths(file: Path, schema: Any) -> None:
    """DataError if the images themselves are in the table."""
    for field in schema:
        if field.name in IMAGE and (
            "bytes: binary" in str(field.type) or str(field.type) in ("binary", "large_binary")
        ):
            message = f"the column {field.name!r} of {file} holds images, not their paths"
            raise DataError(message, help="read it with --dataset hf")


def _column(file: Path, row: Row, names: tuple[str, ...], *, required: bool = True) -> str:
    """The column of `row` that has one of the `names`; "" if there need be none."""
    found = next((name for name in names if name in row), "")
    if required and not found:
        columns = ", ".join(map(repr, row)) or "none"
        raise DataError(f"{file} has no column {' or '.join(names)}, only {columns}", help="rename a column")
    return found


def _value(file: Path, number: int, row: Row, column: str) -> str:
    value = row.get(column)
    if isinstance(value, bool | int | str) and str(value).strip():
        return str(value)
    raise DataError(f"{file}:{number}: no value in the column {column!r}", help="fill it in, or remove the row")


def _labels(file: Path, number: int, row: Row, column: str, separator: str | None) -> list[str]:
    """The labels in a field of a table: none, one or several."""
    value = row.get(column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, str):
        value = [name.strip() for name in (value.split(separator) if separator else [value])]
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(one, bool | int | str) for one in values):
        help = 'write names or whole numbers: "sea", "sea;person" or ["sea", "person"]'
        raise DataError(f"{file}:{number}: the column {column!r} has something other than labels", help=help)
    return [class_name(str(one)) for one in values if str(one).strip()]


def _check_files(file: Path, paths: Mapping[str, int]) -> None:
    if missing := [path for path in paths if not (file.parent / path).is_file()]:
        shown = ", ".join(map(repr, missing[:3])) + ", …" * (len(missing) > 3)
        message = f"{len(missing):,} of {len(paths):,} images of {file} do not exist: {shown}"
        raise DataError(message, help=f"paths are relative to {file.parent}")
