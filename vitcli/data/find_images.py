"""Finds the images that words of a command line name: files, folders, patterns, and `-` for standard input."""

import glob
import os
import sys
from collections.abc import Sequence

from vitcli.data.sources.folder import EXTENSIONS, named_like_image
from vitcli.errors import DataError


def find_images(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths of images in the order of `words`, and notes on words that yielded none.

    A file is accepted whatever its name; a folder yields all files below it that are named like images, sorted; a
    pattern such as 'photos/**/*.jpg' yields the same for each match. `-` stands for the lines of standard input, each a
    file or a folder; whoever reads the images reports one that is missing there.

    Raises:
        DataError: a word names nothing that exists, all words together yield no image, or a folder cannot be listed.
    """
    found = [(word, _images_of(word)) for word in words]
    if missing := [word for word, paths in found if paths is None]:
        raise DataError(
            f"{' and '.join(map(repr, missing))} {'does' if len(missing) == 1 else 'do'} not exist",
            help="give image files, folders, or '-'",
        )
    paths = [path for _, some in found for path in some or ()]
    empty_words = [word for word, some in found if not some]
    empty = [f"no images in {'the lines of standard input' if word == '-' else repr(word)}" for word in empty_words]
    if not paths:
        raise DataError("; ".join(empty), help=f"images are named {' '.join(sorted(EXTENSIONS))}")
    return paths, empty


def _images_of(word: str) -> list[str] | None:
    """None: there is nothing of that name."""
    if word == "-":
        lines = os.fsdecode(sys.stdin.buffer.read()).split("\n")
        return [path for line in lines if line.rstrip("\r") for path in _below(line.rstrip("\r"))]
    if os.path.lexists(word):
        return _below(word)
    matches = sorted(glob.glob(word, recursive=True)) if glob.has_magic(word) else []
    paths = [path for match in matches if os.path.isdir(match) or named_like_image(match) for path in _below(match)]
    return list(dict.fromkeys(paths)) if matches else None  # `**` matches folders and also what is in them


def _below(path: str) -> list[str]:
    """`path`, or if it is a folder the images in it at any depth. Links are followed; no folder is visited twice."""
    if not os.path.isdir(path):
        return [path]
    found: list[str] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(path, followlinks=True, onerror=_unlistable):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(folder, name) for name in files if named_like_image(name) and name[0] != "."]
    return sorted(found)


def _unlistable(error: OSError) -> None:
    raise DataError(f"cannot list the folder {error.filename!r}: {error.strerror}", help="check its permissions")
