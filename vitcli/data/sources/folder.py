"""Images in folders, by split and class; `data/layout.py` says how."""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitcli.data.bands import Picture
from vitcli.data.data_dir import check_data_dir
from vitcli.data.decode import lazy_image, read_file
from vitcli.data.find_images import entries, images_below, is_image_file, is_kind, sizes_and_times
from vitcli.data.jpeg import Jpeg
from vitcli.data.layout import Classes, Tree, in_one_row, open_split
from vitcli.data.packed_names import PackedNames
from vitcli.data.source import Source
from vitcli.recipe.schema import Dataset


class FolderImages(Source):
    """Images below `root`.

    Args:
        classes: class name -> paths relative to `root`; a list of paths alone means no labels.
        max_image_pixels: larger images are not decoded.
    """

    def __init__(self, root: Path, classes: Classes, *, max_image_pixels: int, notes: list[str]) -> None:
        paths, targets, class_names = in_one_row(classes)
        super().__init__(len(paths), targets, class_names, notes)
        self.root, self.max_image_pixels, self.paths = root, max_image_pixels, PackedNames(paths)

    def path(self, index: int) -> Path:
        """The file of the image `index`."""
        return self.root / self.paths[int(self.rows[index])]

    def _load(self, row: int) -> Picture | Jpeg:
        return lazy_image(os.path.join(self.root, self.paths[row]), max_image_pixels=self.max_image_pixels)

    def _file(self, row: int) -> bytes | None:
        return read_file(self.root / self.paths[row])

    def _name(self, row: int) -> str:
        return self.paths[row]

    def stored_in(self) -> dict[str, Path]:
        return {path: self.root / path for path in (self.paths[row] for row in self.rows.tolist())}

    def _digests(self) -> dict[str, str]:
        """`contents_sha256` is over names and sizes, so that copied data is recognized; `sha256` also over times."""
        whole = np.array_equal(self.rows, np.arange(len(self.paths)))
        paths = sorted(self.paths if whole else (self.paths[row] for row in self.rows.tolist()))
        contents, times = hashlib.sha256(), hashlib.sha256()
        for path, (size, mtime_ns) in zip(paths, sizes_and_times(self.root, paths), strict=True):
            contents.update(os.fsencode(path) + b"\0%d\0" % size)
            times.update(b"%d\0" % mtime_ns)
        return {
            "contents_sha256": contents.hexdigest(),
            "sha256": hashlib.sha256(contents.digest() + times.digest()).hexdigest(),
        }


@dataclass(frozen=True)
class DiskFolder(Tree):
    """A folder on a disk."""

    path: Path

    def __str__(self) -> str:
        return os.fspath(self.path)

    def folder(self, name: str) -> "DiskFolder | None":
        path = self.path / name
        return DiskFolder(path) if path.is_dir() else None

    def names(self) -> tuple[list[str], list[str]]:
        folders, others = [], []
        for entry in entries(self.path):
            if not entry.name.startswith("."):
                (folders if is_kind(entry, "is_dir") else others).append(entry.name)
        return folders, others

    def has_images(self) -> bool:
        return any(is_image_file(entry) for entry in entries(self.path))

    def images_below(self, folder: str, ignored: Counter[str]) -> list[str]:
        return images_below(self.path, folder, ignored)

    def source(self, classes: Classes, max_image_pixels: int, notes: list[str]) -> FolderImages:
        return FolderImages(self.path, classes, max_image_pixels=max_image_pixels, notes=notes)


def open_folder(section: Dataset, split: str, needs_labels: bool = True) -> Source:
    """The split "train" or "val" of the image folder `section.data_dir`; see `open_split`.

    Raises:
        DataError, UsageError: there is no such folder, or as `open_split`.
    """
    return open_split(section, DiskFolder(check_data_dir(section)), split, needs_labels)
