"""Images in folders: one folder per split, in it one folder per class, in it (at any depth) the images.

    data_dir/train/cat/a.jpg      data_dir/val/cat/c.jpg
    data_dir/train/dog/b.jpg      data_dir/val/dog/d.jpg

The name of a class is the name of the folder below the split, whatever lies deeper. Only what `stat` calls a regular
file, with a known extension, counts as an image; what is left out is counted in `notes`, never silently.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitcli.data.decode import open_image
from vitcli.data.source import Source
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset

EXTENSIONS = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff"])
_LAYOUT = "the layout is <data_dir>/<split>/<class>/<image>, for example data/train/cat/1.jpg and data/val/cat/2.jpg"


class FolderImages(Source):
    """The images below `root`; paths are relative to it, sorted, class by class."""

    def __init__(self, root: Path, classes: dict[str, list[str]], *, max_image_pixels: int, notes: list[str]) -> None:
        names = list(classes)
        super().__init__(np.repeat(np.arange(len(names)), [len(paths) for paths in classes.values()]), names, notes)
        self.root = root
        self.max_image_pixels = max_image_pixels
        self.paths = PackedNames(path for paths in classes.values() for path in paths)

    def load(self, index: int) -> Image.Image:
        return open_image(self.root / self.paths[index], max_image_pixels=self.max_image_pixels)

    def name(self, index: int) -> str:
        return self.paths[index]

    def _select(self, rows: np.ndarray) -> None:
        self.paths = PackedNames(self.paths[row] for row in rows)

    def _digests(self) -> dict[str, str]:
        """`contents_sha256` is over names and sizes, so that copied data is recognized; `sha256` also over times."""
        contents, times = hashlib.sha256(), hashlib.sha256()
        for path in sorted(self.paths[index] for index in range(len(self))):
            status = os.stat(self.root / path)
            contents.update(os.fsencode(path) + b"\0%d\0" % status.st_size)
            times.update(b"%d\0" % status.st_mtime_ns)
        return {
            "contents_sha256": contents.hexdigest(),
            "sha256": hashlib.sha256(contents.digest() + times.digest()).hexdigest(),
        }


class PackedNames:
    """Many strings in two arrays: a million `str` objects would be copied, page by page, into every worker process."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.text = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self.ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index > 0 else 0
        return os.fsdecode(self.text[start : self.ends[index]].tobytes())


def open_folder(section: Dataset, split: str) -> FolderImages:
    """The split "train" or "val" of the image folder `section.data_dir`. Raises DataError for any other layout."""
    root, notes = _find_split(section, split)
    folders, stray = _list(root)
    if stray:
        notes.append(f"{root}: {_count(stray, 'file')} beside the class folders left out")
    if not folders:
        cure = f"move the images into one folder per class; {_LAYOUT}" if stray else _LAYOUT
        raise DataError(f"no class folders in {root}", help=cure)
    left_out: Counter[str] = Counter()
    classes = {folder: _images_below(root, folder, left_out) for folder in folders}
    empty = [folder for folder, paths in classes.items() if not paths]
    if len(empty) == len(classes) or (empty and split == "train"):
        raise DataError(
            f"no images in {_some(empty, 'class folder')} of {root}"
            + (f" ({_tally(left_out)} left out)" if left_out else ""),
            help=f"add images ({' '.join(sorted(EXTENSIONS))}) or remove the empty folders",
        )
    if left_out:
        notes.append(f"{root}: left out {_tally(left_out)}")
    classes = {folder: paths for folder, paths in classes.items() if paths}
    return FolderImages(root, classes, max_image_pixels=section.max_image_pixels, notes=notes)


def _find_split(section: Dataset, split: str) -> tuple[Path, list[str]]:
    """The folder of a split, and a note if there were two to choose from."""
    if section.data_dir is None:
        raise UsageError(f"the data set {section.dataset!r} needs a folder", help=f"give --data_dir; {_LAYOUT}")
    data_dir = section.data_dir
    if not data_dir.is_dir():
        what = "is not a folder" if data_dir.exists() else "does not exist"
        raise DataError(f"data_dir {os.fspath(data_dir)!r} {what}", help=f"check --data_dir; {_LAYOUT}")
    wanted = section.train_split if split == "train" else section.val_split
    names = ["val", "validation"] if wanted == "val" else [wanted]
    found = [name for name in names if (data_dir / name).is_dir()]
    if not found:
        raise DataError(
            f"no folder {' or '.join(map(repr, names))} in {data_dir}", help=_layout_advice(data_dir, split)
        )
    notes = [f"{data_dir} holds both 'val' and 'validation'; 'val' is used"] if len(found) > 1 else []
    return data_dir / found[0], notes


def _layout_advice(data_dir: Path, split: str) -> str:
    folders, files = _list(data_dir)
    if not folders:
        return f"it holds no folders, only {_count(files, 'file')}; {_LAYOUT}"
    there = f"it holds {_some(folders, 'folder')}"
    if any(_is_image(entry) for folder in folders[:3] for entry in _entries(data_dir / folder)):
        return (
            f"{there}, which hold images: these look like class folders; move them into {data_dir / split}/. {_LAYOUT}"
        )
    return f"{there}; name the right one with --{split}_split. {_LAYOUT}"


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"cannot list the folder {os.fspath(folder)!r}: {error.strerror}", help="check its permissions"
        ) from None


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the visible folders in `folder`, and of everything else that is visible."""
    visible = [entry for entry in _entries(folder) if not entry.name.startswith(".")]
    folders = [entry.name for entry in visible if _is(entry, "is_dir")]
    return folders, [entry.name for entry in visible if not _is(entry, "is_dir")]


def _images_below(root: Path, folder: str, left_out: Counter[str]) -> list[str]:
    """Sorted paths, relative to `root`, of all images below `root/folder`; links are followed, none of them twice."""
    paths: list[str] = []
    waiting, seen = [folder], set()
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(root / current)
        if real in seen:
            left_out["folder read before"] += 1
            continue
        seen.add(real)
        for entry in _entries(root / current):
            path = os.path.join(current, entry.name)
            if entry.name.startswith("."):
                left_out["hidden"] += 1
            elif _is(entry, "is_dir") and _extension(entry.name) not in EXTENSIONS:
                waiting.append(path)
            elif _is_image(entry):
                paths.append(path)
            else:
                left_out[_why_not(entry)] += 1
    return sorted(paths)


def _is(entry: os.DirEntry[str], what: str) -> bool:
    try:
        return getattr(entry, what)()
    except OSError:  # a loop of links
        return False


def _is_image(entry: os.DirEntry[str]) -> bool:
    return _extension(entry.name) in EXTENSIONS and _is(entry, "is_file")


def _why_not(entry: os.DirEntry[str]) -> str:
    if _is(entry, "is_file"):
        return _extension(entry.name) or "without extension"
    if _is(entry, "is_dir"):
        return "folder named like an image"
    return "dangling link" if entry.is_symlink() and not os.path.exists(entry.path) else "not a regular file"


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _count(things: list[Any], noun: str) -> str:
    return f"{len(things)} {noun}" + ("s" if len(things) != 1 else "")


def _some(names: list[str], noun: str, most: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{_count(names, noun)} ({shown}{', …' if len(names) > most else ''})"


def _tally(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
