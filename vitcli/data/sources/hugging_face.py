"""Data sets of the Hugging Face hub as they are on a disk, read without the package `datasets`.

    data_dir/data/train-00000-of-00005.parquet   Parquet files with the bytes of images, as the hub has them
    data_dir/train/data-00000-of-00001.arrow     what `save_to_disk` writes, or a file of the cache of `datasets`
    data_dir/train/metadata.csv (or .jsonl)      a table in a folder of images, see `table.py`

The columns are those that the file declares as Image and ClassLabel, else those with one of the names in `table.py`.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vitcli.data.arrow_files import block_sizes, bytes_at, bytes_per_block, holds_bytes, schema_of, values_of
from vitcli.data.class_names import class_name, classes_of
from vitcli.data.file_kinds import FILES_OF_FOLDERS
from vitcli.data.layout import names_of
from vitcli.data.members import check_size
from vitcli.data.random_access import ImagesInFiles, LargeFile, large_file, most_bytes
from vitcli.data.shards import find_shards
from vitcli.data.source import Source
from vitcli.data.sources.table import IMAGE, LABEL, open_table
from vitcli.errors import DataError
from vitcli.recipe.schema import Dataset

#: bytes of a row group, all of which is read for one image, that are worth a note
_LARGE_BLOCK = 4 << 20


class RowImages(ImagesInFiles):
    """Images in a column of Arrow or Parquet files.

    Args:
        targets: (n,) the class of each row of all files; None without labels.
    """

    def __init__(
        self,
        files: list[LargeFile],
        column: str,
        targets: np.ndarray | None,
        class_names: list[str] | None,
        max_image_pixels: int,
    ) -> None:
        blocks = [(number, block, size) for number, file in enumerate(files) for block, size in _numbered(file)]
        self.blocks = np.array(blocks, dtype=np.int64).reshape(-1, 3)[:, :2]  # (blocks, 2) file, block in it
        self.ends = np.cumsum([size for _, _, size in blocks], dtype=np.int64)  # (blocks,) rows up to here
        super().__init__(int(self.ends[-1]) if blocks else 0, targets, class_names)
        self.files, self.column, self.max_image_pixels = files, column, max_image_pixels

    def _read(self, row: int) -> bytes:
        number = int(np.searchsorted(self.ends, row, side="right"))
        file, block = self.blocks[number].tolist()
        start = int(self.ends[number - 1]) if number else 0
        data = bytes_at(self.files[file], self.column, block, row - start)
        if data is None:
            raise DataError("the file has no bytes of it", help="the data set was saved without its images")
        check_size("it has", len(data), most_bytes(self.max_image_pixels))
        return data

    def _name(self, row: int) -> str:
        file = int(self.blocks[np.searchsorted(self.ends, row, side="right"), 0])
        first = int(self.ends[np.searchsorted(self.blocks[:, 0], file) - 1]) if file else 0
        return f"{Path(self.files[file].path).name}[{row - first}]"

    def stored_in(self) -> dict[str, Path]:
        return {Path(file.path).name: Path(file.path) for file in self.files}

    def _digests(self) -> dict[str, str]:
        """`contents_sha256` is over names and sizes of files, rows and classes; `sha256` also over times."""
        contents = hashlib.sha256(self.rows.tobytes() + (b"" if self.targets is None else self.targets.tobytes()))
        times = hashlib.sha256()
        for file in self.files:
            contents.update(f"{Path(file.path).name} {file.size}\0".encode("utf-8", "replace"))
            times.update(b"%d\0" % file.mtime_ns)
        return {
            "contents_sha256": contents.hexdigest(),
            "sha256": hashlib.sha256(contents.digest() + times.digest()).hexdigest(),
        }


def _numbered(file: LargeFile) -> Iterable[tuple[int, int]]:
    return enumerate(block_sizes(file))


def open_hugging_face(section: Dataset, split: str, needs_labels: bool = True) -> Source:
    """The images of a split.

    Raises:
        MissingSplit: no file belongs to it.
        DataError: a file cannot be read, has no column of images or labels, or some images have no class.
        UsageError: no data_dir, or no pyarrow.
    """
    if table := _metadata(section, split):
        kind = "csv" if table.suffix == ".csv" else "jsonl"
        return open_table(section.model_copy(update={"dataset": kind, "data_dir": table}), "train", needs_labels)
    paths, notes = find_shards(section, split, FILES_OF_FOLDERS["hf"])
    files = [large_file(path) for path in paths if not path.name.startswith("cache-")]  # of `map`, next to the data
    features = _features(files[0])
    image = _image_column(files[0], features)
    label, said = _label_column(files[0], features)
    values = [value for file in files for value in values_of(file, label)] if label else []
    if needs_labels and not label:
        names = ", ".join(map(repr, schema_of(files[0]).names))
        raise DataError(f"{files[0]} has no column of classes, only {names}", help=f"name it {' or '.join(LABEL)}")
    targets, class_names = _classes(section, features.get(label, {}), values, f"{files[0]}: the column {label!r}")
    if needs_labels and targets is None:
        raise DataError(f"no image of {files[0]} has a class", help="hold images out instead: --val_ratio 0.2")
    images = RowImages(files, image, targets, class_names, section.max_image_pixels)
    images.notes = [*notes, *said, *_note_on_blocks(files)]
    return images


def _metadata(section: Dataset, split: str) -> Path | None:
    """The table in the folder of a split."""
    names = names_of(section, split) if section.data_dir else []
    files = [section.data_dir / name / f"metadata{kind}" for name in names for kind in (".csv", ".jsonl")]  # type: ignore
    return next((file for file in files if file.is_file()), None)


def _features(file: LargeFile) -> dict[str, Any]:
    """Column -> what `datasets` wrote of it: {"_type": "ClassLabel", "names": [...]}; empty if it wrote nothing."""
    try:
        found = json.loads((schema_of(file).metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = _features_next_to(Path(file.path))
    return {key: value for key, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


def _features_next_to(path: Path) -> Any:
    try:
        return json.loads((path.parent / "dataset_info.json").read_text(encoding="utf-8"))["features"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _image_column(file: LargeFile, features: dict[str, Any]) -> str:
    """The column whose values are files of images: bytes, or structs with a field `bytes`."""
    schema = schema_of(file)
    declared = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    fitting = [field.name for field in schema if holds_bytes(field.type)]
    for name in (*declared, *IMAGE, "img", *fitting):
        if name in fitting:
            return name
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    kind = " or --dataset parquet for a table of paths" if file.path.endswith(".parquet") else ""
    raise DataError(f"{file} has no column with the bytes of images, only {columns}", help=f"check --data_dir{kind}")


def _label_column(file: LargeFile, features: dict[str, Any]) -> tuple[str, list[str]]:
    """The column of classes ("": none), and a note if there are several."""
    names = schema_of(file).names
    declared = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel" and name in names]
    found = [name for name in (*LABEL, *declared) if name in names]
    others = [name for name in declared if name != found[0]] if found else []
    notes = [f"the classes are in the column {found[0]!r}; also there: {', '.join(others)}"] if others else []
    return (found[0] if found else ""), notes


def _classes(
    section: Dataset, feature: dict[str, Any], values: list[Any], where: str
) -> tuple[np.ndarray | None, list[str] | None]:
    """The class of each value (n,), and the names of all; None if no value is one. -1 stands for none at the hub."""
    num_without = sum(value is None or value == -1 for value in values)
    if num_without == len(values):
        return None, None
    wrong = [value for value in values if not isinstance(value, int | str)]
    if num_without or wrong:
        what = f"no class in {num_without:,} rows" if num_without else f"{wrong[0]!r}, which is no class"
        raise DataError(f"{where} has {what}", help="give each image one class")
    names = feature.get("names")
    if not isinstance(names, list) or isinstance(values[0], str):
        return classes_of([class_name(str(value)) for value in values], section.class_names)
    targets = np.array(values, dtype=np.int64)
    if targets.min() < 0 or targets.max() >= len(names) or len({*names}) < len(names):
        raise DataError(f"{where} does not fit its {len(names)} names", help="save the data set again")
    return targets, [class_name(str(name)) for name in names]


def _note_on_blocks(files: list[LargeFile]) -> list[str]:
    size = max(map(bytes_per_block, files))
    if size < _LARGE_BLOCK:
        return []
    return [
        f"for one image a row group of up to {size / 2**20:.0f} MiB is read: slow in random order; see docs/data.md"
    ]
