"""Images listed in a table: CSV or TSV, JSON Lines, or Parquet, with a column of files and one of classes.

    data_dir/train.csv  data_dir/val.csv     one table for each split
    data_dir                                 one table, with a column `split` or with val_ratio or val_fold

    image_path,label,split
    scans/1.png,healthy,train

Paths are relative to the folder of the table. The columns may have other names, see `IMAGE` and `LABEL`. Images with
the same value in a column `group` stay in one part of val_ratio or val_fold.
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vitcli.data.class_names import class_name
from vitcli.data.source import MissingSplit
from vitcli.data.sources.folder import TABLES, FolderImages
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset

#: names of the columns, the first that exists counts
IMAGE = ("image_path", "image", "file_name", "filename", "filepath", "file", "path")
LABEL = ("label", "class", "class_name", "target", "category")
SPLIT, GROUP = "split", "group"

Row = Mapping[str, Any]
#: a row and its number in the file
Rows = Iterator[tuple[int, Row]]


def open_table(section: Dataset, split: str, needs_labels: bool = True) -> FolderImages:
    """The images of a split, in the table or tables of `section.data_dir`.

    Raises:
        MissingSplit: there is no table for this split, or no row of it.
        DataError: a table cannot be read, lacks a column or a value, names an image twice, or one that does not exist.
        UsageError: no data_dir.
    """
    file, wanted = _find_table(section, split)
    rows = [(number, row) for number, row in _rows(file) if wanted is None or row.get(SPLIT) in wanted]
    if not rows:
        raise MissingSplit(f"{file} has no rows of the split {wanted[0] if wanted else split!r}", help=_ADVICE)
    image, label = _column(file, rows[0][1], IMAGE), _column(file, rows[0][1], LABEL, required=needs_labels)
    paths: dict[str, str] = {}
    groups: dict[str, str] = {}
    for number, row in rows:
        path = _value(file, number, row, image)
        if path in paths:
            raise DataError(f"{file}:{number}: the image {path!r} is listed twice", help="give each image one class")
        paths[path] = class_name(_value(file, number, row, label)) if label else ""
        if row.get(GROUP) not in (None, ""):
            groups[path] = str(row[GROUP])
    _check_files(file, paths)
    images = FolderImages(
        file.parent, _by_class(paths) if label else [*paths], max_image_pixels=section.max_image_pixels, notes=[]
    )
    if groups:
        images.groups = [groups.get(images.name(index), images.name(index)) for index in range(len(images))]
    return images


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
        for fields in (reader := csv.reader(lines, delimiter=delimiter)):
            if len(fields) == len(names):
                yield reader.line_num + 1, dict(zip(names, fields, strict=True))
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
            number = 0
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowInvalid as error:
        raise DataError(f"{file} cannot be read: {str(error).splitlines()[0]}") from None


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
    what = "several classes" if isinstance(value, list | dict) else "no value"
    help = "give each image one class" if what == "several classes" else "fill it in, or remove the row"
    raise DataError(f"{file}:{number}: {what} in the column {column!r}", help=help)


def _check_files(file: Path, paths: Mapping[str, str]) -> None:
    if missing := [path for path in paths if not (file.parent / path).is_file()]:
        shown = ", ".join(map(repr, missing[:3])) + ", …" * (len(missing) > 3)
        message = f"{len(missing):,} of {len(paths):,} images of {file} do not exist: {shown}"
        raise DataError(message, help=f"paths are relative to {file.parent}")


def _by_class(paths: Mapping[str, str]) -> dict[str, list[str]]:
    """Class -> its images; both sorted."""
    classes: dict[str, list[str]] = {name: [] for name in sorted(set(paths.values()))}
    for path in sorted(paths):
        classes[paths[path]].append(path)
    return classes
