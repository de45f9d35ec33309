"""Which files of a folder are the images of a split, and of what class: on a disk and in an archive alike.

    root/train/cat/a.jpg      root/val/cat/c.jpg
    root/train/dog/b.jpg      root/val/dog/d.jpg

With `val_ratio` or `val_fold` there need be no splits: root/cat, root/dog. A validation folder may be flat if a list
names the class of each image (`val_labels`, see `label_list.py`).

The name of a class is the name of the folder directly below the split. Training without labels also takes a folder of
images without class folders: root/train, or root itself. `image_formats.py` says which files are images; the number of
ignored files is in `notes`.
"""

from abc import ABC, abstractmethod
from collections import Counter
from itertools import chain
from typing import Any

import numpy as np

from vitcli.data.class_names import class_name, in_natural_order, read_class_names
from vitcli.data.data_dir import LAYOUT
from vitcli.data.file_kinds import kinds_of_files
from vitcli.data.find_images import tally
from vitcli.data.image_formats import SUFFIXES, named_like_image
from vitcli.data.label_list import read_label_list
from vitcli.data.source import MissingSplit, Source
from vitcli.errors import DataError
from vitcli.recipe.schema import Dataset

#: class name -> paths of its images, or without labels the paths alone
Classes = dict[str, list[str]] | list[str]


class Tree(ABC):
    """A folder, with the folders and files below it. Messages call it by its `str`; its paths are relative to it."""

    @abstractmethod
    def folder(self, name: str) -> "Tree | None":
        """The folder `name` in this one; None if there is none."""

    @abstractmethod
    def names(self) -> tuple[list[str], list[str]]:
        """Sorted names of the visible folders in this one, and of everything else that is visible."""

    @abstractmethod
    def has_images(self) -> bool:
        """Whether an image is directly in this folder."""

    @abstractmethod
    def images_below(self, folder: str, ignored: Counter[str]) -> list[str]:
        """Sorted paths of all images below `folder` ("": all). `ignored` counts what is left out, by the reason."""

    @abstractmethod
    def source(self, classes: Classes, max_image_pixels: int, notes: list[str]) -> Source:
        """These images, in this order."""


def in_one_row(classes: Classes) -> tuple[list[str], np.ndarray | None, list[str] | None]:
    """Paths, the class of each (n,), and the names of the classes; None without labels."""
    if isinstance(classes, list):
        return classes, None, None
    targets = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in classes.values()])
    return [*chain(*classes.values())], targets, [*classes]


def open_split(section: Dataset, root: Tree, split: str, needs_labels: bool = True) -> Source:
    """The split "train" or "val" of the images in `root`.

    Without `needs_labels`, a folder that holds images directly is taken whole, at any depth, without labels. So is
    `root` itself as the training split if it has neither a training nor a validation folder.

    Raises:
        MissingSplit: there is no folder of that name.
        DataError: the layout is another one, or there are no images.
    """
    try:
        folder, notes = _find_split(section, root, split)
    except MissingSplit as error:
        if section.held_out is not None and _has_class_folders(section, root):
            return _open_labeled(section, root, split, [])
        if needs_labels or split != "train" or _folders_of(section, root, "val"):
            raise
        return _open_unlabeled(section, root, [], error.message)
    if split == "val" and section.val_labels:
        return _open_listed(section, root, folder, notes)
    folders, files = folder.names()
    if not needs_labels and (not folders or any(map(named_like_image, files))):
        return _open_unlabeled(section, folder, notes, f"no class folders in {folder}")
    return _open_labeled(section, folder, split, notes)


def _open_labeled(section: Dataset, root: Tree, split: str, notes: list[str]) -> Source:
    folders, files = root.names()
    if files:
        notes.append(f"{root}: ignored {_count(files, 'file')} next to the class folders")
    if not folders:
        help = f"move the images into one folder per class; {LAYOUT}" if files else LAYOUT
        if split == "val" and any(map(named_like_image, files)):
            help += ". Or name the class of each image in a list: --val_labels FILE"
        raise DataError(f"no class folders in {root}", help=help)
    ignored: Counter[str] = Counter()
    classes = {folder: root.images_below(folder, ignored) for folder in folders}
    empty = [folder for folder, paths in classes.items() if not paths]
    if len(empty) == len(classes) or (empty and split == "train"):
        raise _no_images(f"in {_some(empty, 'class folder')} of {root}", ignored, "or remove the empty folders")
    if ignored:
        notes.append(f"{root}: ignored {tally(ignored)}")
    classes = {class_name(folder): paths for folder, paths in classes.items() if paths}
    if len(classes) < len(folders) - len(empty):
        twice = [folder for folder in folders if folder not in classes]
        raise DataError(f"two folders in {root} have the name of one class: {twice[0]!r}", help="merge or rename them")
    return root.source(classes, section.max_image_pixels, notes)


def _open_listed(section: Dataset, root: Tree, folder: Tree, notes: list[str]) -> Source:
    """Images in `folder` whose classes are in the list `val_labels`."""
    file = section.val_labels
    assert file is not None
    ignored: Counter[str] = Counter()
    paths = folder.images_below("", ignored)
    classes, said = read_label_list(file, paths, _classes_of_training(section, root))
    if not classes:
        raise _no_images(f"of {file} in {folder}", ignored, "or check --val_labels")
    return folder.source(classes, section.max_image_pixels, [*notes, *said])


def _classes_of_training(section: Dataset, root: Tree) -> list[str]:
    """The names that numbers stand for: those in the file `class_names`, else the class folders; empty: unknown."""
    if section.class_names:
        return read_class_names(section.class_names)
    folders = _folders_of(section, root, "train")
    names = [class_name(folder) for folder in folders[0].names()[0]] if folders else []
    return in_natural_order(names) if section.class_order == "natural" else sorted(names)


def _open_unlabeled(section: Dataset, root: Tree, notes: list[str], reason: str) -> Source:
    """All images below `root`, at any depth. `reason`: why there are no labels."""
    ignored: Counter[str] = Counter()
    paths = root.images_below("", ignored)
    if not paths:
        raise _no_images(f"in {root}", ignored, "or check --data_dir")
    notes.append(f"{reason}: {_count(paths, 'image')} without labels")
    if ignored:
        notes.append(f"{root}: ignored {tally(ignored)}")
    return root.source(paths, section.max_image_pixels, notes)


def _no_images(where: str, ignored: Counter[str], advice: str) -> DataError:
    suffix = f" ({tally(ignored)} ignored)" if ignored else ""
    return DataError(f"no images {where}{suffix}", help=f"add images ({' '.join(sorted(SUFFIXES))}) {advice}")


def _find_split(section: Dataset, root: Tree, split: str) -> tuple[Tree, list[str]]:
    """The folder of a split, and a note if there were two to choose from."""
    names, found = names_of(section, split), _folders_of(section, root, split)
    if not found:
        message = f"no folder {' or '.join(map(repr, names))} in {root}"
        raise MissingSplit(message, help=_layout_advice(root, split))
    notes = [f"{root} holds both 'val' and 'validation'; 'val' is used"] if len(found) > 1 else []
    return found[0], notes


def names_of(section: Dataset, split: str) -> list[str]:
    """The names under which a split is looked for."""
    wanted = section.train_split if split == "train" else section.val_split
    return ["val", "validation"] if wanted == "val" else [wanted]


def _folders_of(section: Dataset, root: Tree, split: str) -> list[Tree]:
    folders = [root.folder(name) for name in names_of(section, split)]
    return [folder for folder in folders if folder is not None]


def _has_class_folders(section: Dataset, root: Tree) -> bool:
    """Whether there are no splits but class folders."""
    return not _folders_of(section, root, "val") and _are_class_folders(root)


def _are_class_folders(root: Tree) -> bool:
    return any(folder.has_images() for name in root.names()[0][:3] if (folder := root.folder(name)))


def _layout_advice(root: Tree, split: str) -> str:
    folders, files = root.names()
    if not folders:
        kinds = " or ".join(f"--dataset {kind}" for kind in kinds_of_files(files))
        cure = f"; to read these, give {kinds}" if kinds else f"; {LAYOUT}"
        return f"it holds no folders, only {_count(files, 'file')}{cure}"
    there = f"it holds {_some(folders, 'folder')}"
    if _are_class_folders(root):
        cure = "these look like class folders; hold a part of them out for validation: --val_ratio 0.2"
        return f"{there}, which hold images: {cure}, or move them into {root}/{split}/. {LAYOUT}"
    return f"{there}; name the right one with --{split}_split. {LAYOUT}"


def _count(things: list[Any], noun: str) -> str:
    return f"{len(things)} {noun}" + ("s" if len(things) != 1 else "")


def _some(names: list[str], noun: str, most: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{_count(names, noun)} ({shown}{', …' if len(names) > most else ''})"
