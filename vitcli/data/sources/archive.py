"""Images in a zip or tar archive, which is not unpacked: each is read from its place when it is needed.

    photos.zip                 with train/cat/1.jpg, val/cat/2.jpg in it, or with one folder above them
    photos.zip                 with cat/1.jpg, dog/2.jpg in it, and val_ratio or val_fold
    folder/train.tar, val.tar  one archive for each split (.zip too), with class folders, or with a tar for each class

What is in the archive follows the rules for image folders, see `data/layout.py`.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from vitcli.data.file_kinds import FILES
from vitcli.data.find_images import entries, tally
from vitcli.data.image_formats import LONGEST_START, format_of, named_like_image, suffix_of
from vitcli.data.layout import Classes, Tree, in_one_row, names_of, open_split
from vitcli.data.members import Members
from vitcli.data.random_access import ImagesInFiles, LargeFile, large_file, most_bytes
from vitcli.data.source import MissingSplit, Source
from vitcli.data.tar_index import read_tar
from vitcli.data.zip_index import read_zip
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset

_HELP = (
    "give --data_dir: a .zip or .tar that holds train/<class>/<image> and val/<class>/<image>, or a folder with "
    "train.tar and val.tar"
)
#: bytes of a file without suffix, which may be an image
_MOST_WITHOUT_SUFFIX = 1 << 26


class ArchiveImages(ImagesInFiles):
    """Images that are members of an archive.

    Args:
        folder: what holds them; their names are relative to it.
        classes: class name -> paths; a list of paths alone means no labels.
    """

    def __init__(self, folder: "MemberFolder", classes: Classes, max_image_pixels: int, notes: list[str]) -> None:
        paths, targets, class_names = in_one_row(classes)
        super().__init__(len(paths), targets, class_names, notes)
        self.members, self.max_image_pixels = folder.members, max_image_pixels
        self.numbers = np.array([folder.number_of(path) for path in paths], dtype=np.int64)
        self.prefix_length = len(os.fsencode(folder.prefix))  # the names of members begin with it

    def _read(self, row: int) -> bytes:
        return self.members.read(int(self.numbers[row]), most_bytes(self.max_image_pixels))

    def _name(self, row: int) -> str:
        return os.fsdecode(os.fsencode(self.members.names[int(self.numbers[row])])[self.prefix_length :])

    def stored_in(self) -> dict[str, Path]:
        path = Path(self.members.file.path)
        return {} if self.members.has_checksums else {path.name: path}

    def _digests(self) -> dict[str, str]:
        return self.members.digests(self.numbers[self.rows])


class MemberFolder(Tree):
    """A folder in an archive; `title` is what messages call it, `prefix` the path to it."""

    def __init__(self, members: Members, title: str, prefix: str = "") -> None:
        self.members, self.title, self.prefix = members, title, prefix
        self.folders: dict[str, MemberFolder] = {}
        self.files: dict[str, int] = {}  # name -> its place among the members

    def __str__(self) -> str:
        return self.title

    def folder(self, name: str) -> "MemberFolder | None":
        return self.folders.get(name)

    def names(self) -> tuple[list[str], list[str]]:
        return _visible(self.folders), _visible(self.files)

    def has_images(self) -> bool:
        return any(self._is_image(name) for name in self.files)

    def images_below(self, folder: str, ignored: Counter[str]) -> list[str]:
        start = self.folders[folder] if folder else self
        return sorted(start._images(f"{folder}/" if folder else "", ignored))

    def source(self, classes: Classes, max_image_pixels: int, notes: list[str]) -> ArchiveImages:
        return ArchiveImages(self, classes, max_image_pixels, notes)

    def number_of(self, path: str) -> int:
        """The place among the members of a file in this folder."""
        *folders, name = path.split("/")
        tree = self
        for folder in folders:
            tree = tree.folders[folder]
        return tree.files[name]

    def _images(self, path: str, ignored: Counter[str]) -> Iterator[str]:
        for name in self.files:
            if _is_hidden(name):
                ignored["hidden"] += 1
            elif self._is_image(name):
                yield path + name
            else:
                ignored[suffix_of(name) or "without suffix"] += 1
        for name, folder in self.folders.items():
            if _is_hidden(name):
                ignored["hidden"] += 1
            else:
                yield from folder._images(f"{path}{name}/", ignored)

    def _is_image(self, name: str) -> bool:
        """As `image_formats.is_image`: named like one, or without suffix and beginning like one."""
        if suffix_of(name):
            return named_like_image(name)
        try:
            return format_of(self.members.read(self.files[name], _MOST_WITHOUT_SUFFIX)[:LONGEST_START]) is not None
        except DataError:  # whoever lists the folder says that it was left out
            return False


class ArchivesInFolder(Tree):
    """A folder with an archive for each split, which count as folders of the same names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return os.fspath(self.path)

    def folder(self, name: str) -> MemberFolder | None:
        files = [self.path / (name + suffix) for suffix in FILES["archive"]]
        found = [file for file in files if file.is_file()]
        if len(found) > 1:
            raise DataError(f"{self.path} holds both {found[0].name} and {found[1].name}", help="remove one of them")
        return _top_folder(_tree(large_file(found[0]))) if found else None

    def names(self) -> tuple[list[str], list[str]]:
        return [], [entry.name for entry in entries(self.path) if not entry.name.startswith(".")]

    def has_images(self) -> bool:
        return False

    def images_below(self, folder: str, ignored: Counter[str]) -> list[str]:
        return []

    def source(self, classes: Classes, max_image_pixels: int, notes: list[str]) -> Source:
        raise DataError(f"{self.path} holds no images, only archives", help=_HELP)


def open_archive(section: Dataset, split: str, needs_labels: bool = True) -> Source:
    """The split "train" or "val" of the archive `section.data_dir`, or of those in this folder; see `open_split`.

    Raises:
        DataError: the archive cannot be read: it is damaged, encrypted, or compressed as a whole; or as `open_split`.
        UsageError: no data_dir.
    """
    where = section.data_dir
    if where is None:
        raise UsageError(f"the data set {section.dataset!r} needs an archive", help=_HELP)
    if where.is_dir():
        root = ArchivesInFolder(where)
        if not any(map(root.folder, names_of(section, split))):
            raise MissingSplit(f"there is no {_files_of(section, split)} in {where}", help=_HELP)
        source = open_split(section, root, split, needs_labels)
    else:
        splits = [*names_of(section, "train"), *names_of(section, "val")]
        source = open_split(section, _top_folder(_tree(large_file(where)), splits), split, needs_labels)
    assert isinstance(source, ArchiveImages)
    if left_out := source.members.ignored:
        source.notes.append(f"{source.members.file}: ignored {tally(left_out)}")
    return source


def _files_of(section: Dataset, split: str) -> str:
    return " or ".join(name + suffix for name in names_of(section, split) for suffix in FILES["archive"])


@lru_cache(maxsize=4)
def _members(file: LargeFile) -> Members:
    """Both splits, and further commands in the same process, need the index of one archive."""
    return read_zip(file) if file.read(0, 4) in (b"PK\3\4", b"PK\5\6") else read_tar(file)


def _tree(file: LargeFile) -> MemberFolder:
    """All folders and files of an archive."""
    members = _members(file)
    root = MemberFolder(members, file.path)
    for number, path in enumerate(members.names):
        *folders, name = path.split("/")
        tree = root
        for folder in folders:
            if folder not in tree.folders:
                tree.folders[folder] = MemberFolder(members, f"{tree.title}/{folder}", f"{tree.prefix}{folder}/")
            tree = tree.folders[folder]
        tree.files[name] = number
    return root


def _top_folder(root: MemberFolder, splits: Collection[str] = ()) -> MemberFolder:
    """Where the splits or class folders are: `root`, or below folders that are the only ones at their place."""
    folders = root.names()[0]
    if len(folders) != 1 or folders[0] in splits or root.has_images() or root.folders[folders[0]].has_images():
        return root
    return _top_folder(root.folders[folders[0]], splits)


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    """Also what macOS adds to archives: `__MACOSX/cat/._1.jpg`."""
    return name.startswith(".") or name == "__MACOSX"
