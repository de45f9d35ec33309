"""Finds the files of a split among many: shards of one data set, told apart by folder or by a word of their names."""

import glob
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from vitcli.data.source import MissingSplit
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset

#: recipe value of `val_split` -> what the files of that split are called, in order of preference
_VAL_NAMES = {"val": ("val", "validation", "valid", "dev", "test")}
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
#: what a pattern may stand for
_MOST_FILES = 100_000
_ADDRESS = re.compile(r"(^|/)(pipe:|(https?|s3|gs|hf|ftp):/)")


def find_shards(section: Dataset, split: str, suffixes: Collection[str]) -> tuple[list[Path], list[str]]:
    """Sorted files of the split below `section.data_dir`, and notes.

    data_dir is a folder, a file or a pattern such as `shards/train-{000..146}.tar`. The files of the split `train` are
    in a folder `train`, or their names have the word: `train-000.tar`, `data/train-00000-of-00005.parquet`. If no name
    has the word of any split, all files are training files.

    Raises:
        MissingSplit: there are files, but none of this split.
        DataError: there are none at all, or not all that a pattern lists.
        UsageError: no data_dir, or an address.
    """
    top, files = _all_files(section, suffixes)
    words = {path: _words_of(path, top) for path in files}
    train, val = _names(section, "train"), _names(section, "val")
    wanted = train if split == "train" else val
    for name in wanted:
        if found := [path for path in files if name in words[path]]:
            notes = [f"the split {name!r} of {top} is used for validation"] if name == "test" != wanted[0] else []
            return found, notes
    if split == "train" and not any(words[path] & {*train, *val} for path in files):
        return files, []
    names = " or ".join(map(repr, wanted))
    help = f"name the right one with --{split}_split, or hold images out: --val_ratio 0.2"
    raise MissingSplit(f"no name of the {len(files):,} files in {top} has the word {names}", help=help)


def _names(section: Dataset, split: str) -> tuple[str, ...]:
    if split == "train":
        return (section.train_split,)
    return _VAL_NAMES.get(section.val_split, (section.val_split,))


def _words_of(path: Path, top: Path) -> set[str]:
    """The parts of a path, and what stands between - _ and . in them: `data/train-0.tar` -> data, train-0, train, 0."""
    parts = path.relative_to(top).with_suffix("").parts if path.is_relative_to(top) else (path.stem,)
    return {word for part in parts for word in (part, *re.split(r"[-_.]", part))}


def _all_files(section: Dataset, suffixes: Collection[str]) -> tuple[Path, list[Path]]:
    """The folder that data_dir is or begins with, and all files of these suffixes in it."""
    kinds, where = " or ".join(suffixes), section.data_dir
    if where is None:
        help = f"give --data_dir: a folder with {kinds} files, one of them, or a pattern in quotes"
        raise UsageError(f"the data set {section.dataset!r} needs files", help=help)
    if _ADDRESS.search(os.fspath(where)):
        message = f"data_dir {os.fspath(where)!r} is an address or a command"
        raise UsageError(message, help="only files are read: download them first")
    if where.is_dir():
        files = [path for path in sorted(where.rglob("*")) if path.suffix in suffixes and not _is_hidden(path, where)]
        if not files:
            raise DataError(f"there are no {kinds} files in {where}", help="check --data_dir")
        return where, files
    files = [Path(path) for path in _expanded(os.fspath(where))]
    if missing := [path for path in files if not path.is_file()]:
        shown = ", ".join(map(str, missing[:3])) + ", …" * (len(missing) > 3)
        raise DataError(f"{len(missing):,} of {len(files):,} files of data_dir do not exist: {shown}")
    if not files:
        raise DataError(f"no file matches data_dir {os.fspath(where)!r}", help="check --data_dir")
    return Path(os.path.commonpath([path.parent for path in files])), files


def _is_hidden(path: Path, top: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(top).parts)


def _expanded(pattern: str) -> list[str]:
    """`a-{000..146}.tar`, `{train,val}.tar` and `*.tar` -> paths; each once, sorted."""
    found: set[str] = set()
    for path in _without_braces(pattern):
        found.update(glob.glob(path) if glob.has_magic(path) else [path])
        if len(found) > _MOST_FILES:
            raise UsageError(f"data_dir {pattern!r} stands for more than {_MOST_FILES:,} files")
    return sorted(found)


def _without_braces(pattern: str) -> Iterator[str]:
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    for choice in _choices(braces[1]):
        yield from _without_braces(pattern[: braces.start()] + choice + pattern[braces.end() :])


def _choices(inside: str) -> Sequence[str] | Iterator[str]:
    """What stands in braces: a range of numbers with leading zeros, or words with commas between them."""
    if numbers := _RANGE.fullmatch(inside):
        return (f"{number:0{len(numbers[1])}}" for number in range(int(numbers[1]), int(numbers[2]) + 1))
    return inside.split(",")
