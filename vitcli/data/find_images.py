"""Finds images: below a folder, or those that words of a command line name. What is left out is counted."""

import glob
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path

from vitcli.data.image_formats import SUFFIXES, is_image, named_like_image, suffix_of
from vitcli.data.listings import Listing, remember, remembered
from vitcli.errors import DataError

_THREADS, _AT_ONCE = 16, 200
#: seconds for one file from which on several threads ask; a local disk takes a few microseconds
_LATE = 50e-6


def find_images(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths of images in the order of `words`, and notes on words that yielded none and on what was left out.

    A file is accepted whatever its name; a folder yields all images below it, sorted; a pattern such as
    'photos/**/*.jpg' yields the same for each match. `-` stands for the lines of standard input, each a file or a
    folder; whoever reads the images reports one that is missing there.

    Raises:
        DataError: a word names nothing that exists, all words together yield no image, or a folder cannot be listed.
    """
    ignored: Counter[str] = Counter()
    found = [(word, _images_of(word, ignored)) for word in words]
    if missing := [word for word, paths in found if paths is None]:
        raise DataError(
            f"{' and '.join(map(repr, missing))} {'does' if len(missing) == 1 else 'do'} not exist",
            help="give image files, folders, or '-'",
        )
    paths = [path for _, some in found for path in some or ()]
    empty_words = [word for word, some in found if not some]
    notes = [f"no images in {'the lines of standard input' if word == '-' else repr(word)}" for word in empty_words]
    notes += [f"left out: {tally(ignored)}"] if ignored else []
    if not paths:
        raise DataError("; ".join(notes), help=f"images are named {' '.join(sorted(SUFFIXES))}")
    return paths, notes


def _images_of(word: str, ignored: Counter[str]) -> list[str] | None:
    """None: there is nothing of that name."""
    if word == "-":
        lines = os.fsdecode(sys.stdin.buffer.read()).split("\n")
        return [path for line in lines if line.rstrip("\r") for path in _at(line.rstrip("\r"), ignored)]
    if os.path.lexists(word):
        return _at(word, ignored)
    matches = sorted(glob.glob(word, recursive=True)) if glob.has_magic(word) else []
    paths = [path for match in matches if os.path.isdir(match) or is_image(match) for path in _at(match, ignored)]
    return list(dict.fromkeys(paths)) if matches else None  # `**` matches folders and also what is in them


def _at(path: str, ignored: Counter[str]) -> list[str]:
    """`path`, or if it is a folder the images below it."""
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(path, below) for below in images_below(Path(path), "", ignored)]


def images_below(root: Path, folder: str, ignored: Counter[str]) -> list[str]:
    """Sorted paths, relative to `root`, of all images below `root/folder`. Links are followed, no folder twice.

    ignored: counts what is left out, by the reason.
    """
    start = os.path.join(root, folder)
    listing = remembered(start)
    if listing is None:
        listing = _listing(start)
        remember(start, listing)
    ignored.update(listing.ignored)
    return [os.path.join(folder, path) for path in listing.paths]


def _listing(root: str) -> Listing:
    ignored: Counter[str] = Counter()
    listing, waiting, seen = Listing(), [""], set()
    while waiting:
        current = waiting.pop()
        folder = os.path.join(root, current)
        real = os.path.realpath(folder)
        if real in seen:
            ignored["folder read before"] += 1
            continue
        seen.add(real)
        with suppress(OSError):  # `entries` says what is wrong
            listing.folders[current] = os.stat(folder).st_mtime_ns
        for entry in entries(folder):
            path = os.path.join(current, entry.name)
            if entry.name.startswith("."):
                ignored["hidden"] += 1
            elif is_kind(entry, "is_dir") and not named_like_image(entry.name):
                waiting.append(path)
            elif is_image_file(entry):
                listing.paths.append(path)
            else:
                ignored[_why_not(entry)] += 1
    listing.paths.sort()
    listing.ignored = dict(ignored)
    return listing


def entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """What is in `folder`, by name; DataError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        message = f"cannot list the folder {os.fspath(folder)!r}: {error.strerror}"
        raise DataError(message, help="check its permissions") from None


def is_kind(entry: os.DirEntry[str], what: str) -> bool:
    """The answer of the method `what`; False for a loop of links."""
    try:
        return getattr(entry, what)()
    except OSError:
        return False


def is_image_file(entry: os.DirEntry[str]) -> bool:
    return is_kind(entry, "is_file") and is_image(entry.path)


def _why_not(entry: os.DirEntry[str]) -> str:
    if is_kind(entry, "is_file"):
        return suffix_of(entry.name) or "without suffix"
    if is_kind(entry, "is_dir"):
        return "folder named like an image"
    return "dangling link" if entry.is_symlink() and not os.path.exists(entry.path) else "not a regular file"


def sizes_and_times(root: Path, paths: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Size in bytes and time of the last change in ns of each file `root/path`.

    A network file system answers each question late, but many at a time, so several threads ask. On a local disk
    they would only wait for each other. How long the first files of each round took decides.
    """

    def of_some(start: int) -> list[tuple[int, int]]:
        statuses = [os.stat(prefix + path) for path in paths[start : start + _AT_ONCE]]
        return [(status.st_size, status.st_mtime_ns) for status in statuses]

    prefix = os.path.join(root, "")
    starts = range(0, len(paths), _AT_ONCE)
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, len(starts), 1 + 4 * _THREADS):
            begin = time.perf_counter()
            found = of_some(starts[first])
            several = pool.map if time.perf_counter() - begin > _LATE * len(found) else map
            yield from found
            yield from chain.from_iterable(several(of_some, starts[first + 1 : first + 1 + 4 * _THREADS]))


def tally(ignored: Counter[str]) -> str:
    """For example: 2 .txt, 1 hidden."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(ignored.items()))
