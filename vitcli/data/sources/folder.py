"""Images in folders: one folder per split, in it one folder per class, in it (at any depth) the images.

    data_dir/train/cat/a.jpg      data_dir/val/cat/c.jpg
    data_dir/train/dog/b.jpg      data_dir/val/dog/d.jpg

With `val_ratio` or `val_fold` there need be no splits: data_dir/cat, data_dir/dog. A validation folder may be flat if a
list names the class of each image (`val_labels`, see `label_list.py`).

The name of a class is the name of the folder directly below the split. Training without labels also takes a folder of
images without class folders: data_dir/train, or data_dir itself. `image_formats.py` says which files are images; the
number of ignored files is in `notes`.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vitcli.data.bands import Picture
from vitcli.data.class_names import class_name, in_natural_order, read_class_names
from vitcli.data.decode import open_image
from vitcli.data.find_images import entries, images_below, is_image_file, is_kind, tally
from vitcli.data.image_formats import SUFFIXES, named_like_image
from vitcli.data.label_list import read_label_list
from vitcli.data.source import MissingSplit, Source
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset

#: recipe key `dataset` -> suffixes of the tables that list its images, see `table.py`
TABLES = {"csv": (".csv", ".tsv"), "jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet",)}
_LAYOUT = "the layout is <data_dir>/<split>/<class>/<image>, for example data/train/cat/1.jpg and data/val/cat/2.jpg"


class FolderImages(Source):
    """Images below `root`.

    Args:
        classes: class name -> paths relative to `root`; a list of paths alone means no labels.
        max_image_pixels: larger images are not decoded.
    """

    def __init__(
        self, root: Path, classes: dict[str, list[str]] | list[str], *, max_image_pixels: int, notes: list[str]
    ) -> None:
        paths, targets, class_names = classes, None, None
        if isinstance(classes, dict):
            paths, class_names = list(chain(*classes.values())), list(classes)
            targets = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in classes.values()])
        super().__init__(len(paths), targets, class_names, notes)
        self.root, self.max_image_pixels, self.paths = root, max_image_pixels, PackedNames(paths)

    def _load(self, row: int) -> Picture:
        return open_image(self.root / self.paths[row], max_image_pixels=self.max_image_pixels)

    def _name(self, row: int) -> str:
        return self.paths[row]

    def _digests(self) -> dict[str, str]:
        """`contents_sha256` is over names and sizes, so that copied data is recognized; `sha256` also over times."""
        contents, times = hashlib.sha256(), hashlib.sha256()
        for path in sorted(self.paths[row] for row in self.rows.tolist()):
            status = os.stat(self.root / path)
            contents.update(os.fsencode(path) + b"\0%d\0" % status.st_size)
            times.update(b"%d\0" % status.st_mtime_ns)
        return {
            "contents_sha256": contents.hexdigest(),
            "sha256": hashlib.sha256(contents.digest() + times.digest()).hexdigest(),
        }


class PackedNames:
    """Many strings in two arrays. A million `str` objects would be copied, page by page, into every worker process."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.text = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self.ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index > 0 else 0
        return os.fsdecode(self.text[start : self.ends[index]].tobytes())


def open_folder(section: Dataset, split: str, needs_labels: bool = True) -> FolderImages:
    """The split "train" or "val" of the image folder `section.data_dir`.

    Without `needs_labels`, a folder that holds images directly is taken whole, at any depth, without labels. So is
    data_dir itself as the training split if it has neither a training nor a validation folder.

    Raises:
        MissingSplit: there is no folder of that name.
        DataError: the layout is another one, or there are no images.
        UsageError: no data_dir.
    """
    try:
        root, notes = _find_split(section, split)
    except MissingSplit as error:
        if section.held_out is not None and _has_class_folders(section):
            return _open_labeled(section, _data_dir(section), split, [])
        if needs_labels or split != "train" or _folders_of(section, "val"):
            raise
        return _open_unlabeled(section, _data_dir(section), [], error.message)
    if split == "val" and section.val_labels:
        return _open_listed(section, root, section.val_labels, notes)
    folders, files = _list(root)
    if not needs_labels and (not folders or any(map(named_like_image, files))):
        return _open_unlabeled(section, root, notes, f"no class folders in {root}")
    return _open_labeled(section, root, split, notes)


def _open_labeled(section: Dataset, root: Path, split: str, notes: list[str]) -> FolderImages:
    folders, files = _list(root)
    if files:
        notes.append(f"{root}: ignored {_count(files, 'file')} next to the class folders")
    if not folders:
        help = f"move the images into one folder per class; {_LAYOUT}" if files else _LAYOUT
        if split == "val" and any(map(named_like_image, files)):
            help += ". Or name the class of each image in a list: --val_labels FILE"
        raise DataError(f"no class folders in {root}", help=help)
    ignored: Counter[str] = Counter()
    classes = {folder: images_below(root, folder, ignored) for folder in folders}
    empty = [folder for folder, paths in classes.items() if not paths]
    if len(empty) == len(classes) or (empty and split == "train"):
        raise _no_images(f"in {_some(empty, 'class folder')} of {root}", ignored, "or remove the empty folders")
    if ignored:
        notes.append(f"{root}: ignored {tally(ignored)}")
    classes = {class_name(folder): paths for folder, paths in classes.items() if paths}
    if len(classes) < len(folders) - len(empty):
        twice = [folder for folder in folders if folder not in classes]
        raise DataError(f"two folders in {root} have the name of one class: {twice[0]!r}", help="merge or rename them")
    return FolderImages(root, classes, max_image_pixels=section.max_image_pixels, notes=notes)


def _open_listed(section: Dataset, root: Path, file: Path, notes: list[str]) -> FolderImages:
    """Images below `root` whose classes are in the list `file`."""
    ignored: Counter[str] = Counter()
    paths = images_below(root, "", ignored)
    classes, said = read_label_list(file, paths, _classes_of_training(section))
    if not classes:
        raise _no_images(f"of {file} in {root}", ignored, "or check --val_labels")
    return FolderImages(root, classes, max_image_pixels=section.max_image_pixels, notes=[*notes, *said])


def _classes_of_training(section: Dataset) -> list[str]:
    """The names that numbers stand for: those in the file `class_names`, else the class folders; empty: unknown."""
    if section.class_names:
        return read_class_names(section.class_names)
    folders = _folders_of(section, "train")
    names = [class_name(folder) for folder in _list(folders[0])[0]] if folders else []
    return in_natural_order(names) if section.class_order == "natural" else sorted(names)


def _open_unlabeled(section: Dataset, root: Path, notes: list[str], reason: str) -> FolderImages:
    """All images below `root`, at any depth. `reason`: why there are no labels."""
    ignored: Counter[str] = Counter()
    paths = images_below(root, "", ignored)
    if not paths:
        raise _no_images(f"in {root}", ignored, "or check --data_dir")
    notes.append(f"{reason}: {_count(paths, 'image')} without labels")
    if ignored:
        notes.append(f"{root}: ignored {tally(ignored)}")
    return FolderImages(root, paths, max_image_pixels=section.max_image_pixels, notes=notes)


def _no_images(where: str, ignored: Counter[str], advice: str) -> DataError:
    suffix = f" ({tally(ignored)} ignored)" if ignored else ""
    return DataError(f"no images {where}{suffix}", help=f"add images ({' '.join(sorted(SUFFIXES))}) {advice}")


def _find_split(section: Dataset, split: str) -> tuple[Path, list[str]]:
    """The folder of a split, and a note if there were two to choose from."""
    data_dir, names, found = _data_dir(section), _names_of(section, split), _folders_of(section, split)
    if not found:
        message = f"no folder {' or '.join(map(repr, names))} in {data_dir}"
        raise MissingSplit(message, help=_layout_advice(data_dir, split))
    notes = [f"{data_dir} holds both 'val' and 'validation'; 'val' is used"] if len(found) > 1 else []
    return found[0], notes


def _data_dir(section: Dataset) -> Path:
    data_dir = section.data_dir
    if data_dir is None:
        raise UsageError(f"the data set {section.dataset!r} needs a folder", help=f"give --data_dir; {_LAYOUT}")
    if not data_dir.is_dir():
        what = "is not a folder" if data_dir.exists() else "does not exist"
        kinds = [name for name, suffixes in TABLES.items() if data_dir.suffix in suffixes and data_dir.exists()]
        help = f"a table is read with --dataset {kinds[0]}" if kinds else f"check --data_dir; {_LAYOUT}"
        raise DataError(f"data_dir {os.fspath(data_dir)!r} {what}", help=help)
    return data_dir


def _names_of(section: Dataset, split: str) -> list[str]:
    """The names under which the folder of a split is looked for."""
    wanted = section.train_split if split == "train" else section.val_split
    return ["val", "validation"] if wanted == "val" else [wanted]


def _folders_of(section: Dataset, split: str) -> list[Path]:
    folders = [_data_dir(section) / name for name in _names_of(section, split)]
    return [folder for folder in folders if folder.is_dir()]


def _has_class_folders(section: Dataset) -> bool:
    """Whether data_dir has no splits but class folders."""
    data_dir = _data_dir(section)
    return not _folders_of(section, "val") and _are_class_folders(data_dir, _list(data_dir)[0])


def _are_class_folders(data_dir: Path, folders: list[str]) -> bool:
    return any(is_image_file(entry) for folder in folders[:3] for entry in entries(data_dir / folder))


def _layout_advice(data_dir: Path, split: str) -> str:
    folders, files = _list(data_dir)
    if not folders:
        return f"it holds no folders, only {_count(files, 'file')}; {_LAYOUT}"
    there = f"it holds {_some(folders, 'folder')}"
    if _are_class_folders(data_dir, folders):
        cure = "these look like class folders; hold a part of them out for validation: --val_ratio 0.2"
        return f"{there}, which hold images: {cure}, or move them into {data_dir / split}/. {_LAYOUT}"
    return f"{there}; name the right one with --{split}_split. {_LAYOUT}"


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the visible folders in `folder`, and of everything else that is visible."""
    folders, others = [], []
    for entry in entries(folder):
        if not entry.name.startswith("."):
            (folders if is_kind(entry, "is_dir") else others).append(entry.name)
    return folders, others


def _count(things: list[Any], noun: str) -> str:
    return f"{len(things)} {noun}" + ("s" if len(things) != 1 else "")


def _some(names: list[str], noun: str, most: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{_count(names, noun)} ({shown}{', …' if len(names) > most else ''})"
