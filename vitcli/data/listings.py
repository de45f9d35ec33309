"""Remembers which images are in a folder, so that a resumed run of a million files need not look for them again.

A folder's time changes when a file in it is added, removed or renamed. While the times of all folders are the same, so
are the names in them; whether a file itself changed is for `Source.fingerprint` to find.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitcli.disk import write_whole

#: images; fewer are found quickly enough
SMALLEST = 100_000
#: a folder that changed so shortly before it was listed may change again without another time
_SETTLED_NS = 2_000_000_000


@dataclass
class Listing:
    """What was found below a folder.

    folders: those that were read, itself as "" -> time of their last change in ns, before they were read.
    ignored: reason -> number of files left out. paths: of the images, relative to the folder, sorted.
    """

    folders: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    time_ns: int = field(default_factory=time.time_ns)

    def holds(self, root: str) -> bool:
        """Whether the folders below `root` still have the same times."""
        with suppress(OSError):
            return all(
                os.stat(os.path.join(root, folder)).st_mtime_ns == then < self.time_ns - _SETTLED_NS
                for folder, then in self.folders.items()
            )
        return False


_known: ContextVar[dict[str, Listing] | None] = ContextVar("listings", default=None)


@contextmanager
def listings_in(file: Path) -> Iterator[None]:
    """In this block, folders whose listing is in `file` are not read again; `file` gets the listings of the others.

    Raises:
        DiskError: the listings cannot be written.
    """
    before = _read(file)
    token = _known.set(dict(before))
    try:
        yield
        now = _known.get() or {}
        if now != before and sum(len(listing.paths) for listing in now.values()) >= SMALLEST:
            _write(file, now)
    finally:
        _known.reset(token)


def remembered(root: str) -> Listing | None:
    """The listing of `root`, if there is one and it still holds."""
    listing = (_known.get() or {}).get(os.path.abspath(root))
    return listing if listing and listing.holds(root) else None


def remember(root: str, listing: Listing) -> None:
    """For the next time, inside of `listings_in`."""
    known = _known.get()
    if known is not None:
        known[os.path.abspath(root)] = listing


def _write(file: Path, listings: dict[str, Listing]) -> None:
    """All names in one row of bytes, each ended by a zero byte, and the rest as metadata."""
    from safetensors.numpy import save  # not needed by `predict`, which starts without it

    names = b"".join(os.fsencode("\0".join([*listing.paths, ""])) for listing in listings.values())
    facts = {root: vars(listing) | {"paths": len(listing.paths)} for root, listing in listings.items()}
    write_whole(file, save({"names": np.frombuffer(names, np.uint8)}, metadata={"listings": json.dumps(facts)}))


def _read(file: Path) -> dict[str, Listing]:
    """Nothing where the file is missing or not as it was written: then the folders are read."""
    from safetensors import SafetensorError, safe_open

    with suppress(OSError, SafetensorError, ValueError, KeyError, TypeError):
        with safe_open(file, "numpy") as content:
            facts = json.loads(content.metadata()["listings"])
            names = os.fsdecode(content.get_tensor("names").tobytes()).split("\0")[:-1]
        ends = np.cumsum([fact["paths"] for fact in facts.values()], dtype=int).tolist()
        if ends[-1] == len(names):
            starts = [0, *ends[:-1]]
            return {
                root: Listing(**fact | {"paths": names[start:end]})
                for (root, fact), start, end in zip(facts.items(), starts, ends, strict=True)
            }
    return {}
