"""What tells a run that is resumed whether its images are still the same (`data_fingerprint`).

    names     the names of the images and their classes
    sizes     also the size of each file
    content   also every byte. Digests are kept in the user's cache, by path, size, time and inode of a file, so that
              only files that changed are read again.

A fingerprint holds the digests of all weaker kinds too, so that runs can be compared by the strongest that both have.
"""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitcli.data.decode import BadImage
from vitcli.data.source import Source

Extent = Literal["names", "sizes", "content"]

#: the digests that a fingerprint may have, strongest first; `sha256` alone is that of a source without files
DIGESTS = ("contents_blake2b", "contents_sha256", "names_sha256", "sha256")
#: the one of them that the classes of images are part of
LABELS = "names_sha256"
#: a file that changed less than this before it was read may change again without a new time
_UNSETTLED_NS = 2 * 10**9
_NUM_THREADS = 8

#: of a file: a number that path, size, time and inode determine, and 128 bits of its digest
Record = tuple[int, int, int]


def fingerprint_of(source: Source, extent: Extent) -> dict[str, Any]:
    """The facts for data.json.

    Raises:
        BadImage: a file cannot be read.
    """
    facts = source.fingerprint()
    if not source.stored_in():
        return facts
    facts[LABELS] = _names(source)
    if extent == "names":
        facts.pop("contents_sha256", None)
        facts["sha256"] = facts[LABELS]
    if extent == "content":
        facts["contents_blake2b"] = _contents(source)
    return facts


def strongest_common(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The digest to compare two fingerprints by; None: they have none in common."""
    return next((name for name in DIGESTS if name in before and name in now), None)


def other_labels(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two sets of the same files differ in the classes of images, as two tables may."""
    return LABELS in before and LABELS in now and before[LABELS] != now[LABELS]


def _names(source: Source) -> str:
    """Over the name of each image and its classes."""
    digest = hashlib.sha256()
    for name, label in sorted((source.name(index), source.labels(index)) for index in range(len(source))):
        digest.update(b"\0".join(os.fsencode(text) for text in (name, *label)) + b"\0\0")
    return digest.hexdigest()


def _contents(source: Source) -> str:
    """Over the labels of the files and their digests."""
    files = sorted(source.stored_in().items())
    records = _Cache([path for _, path in files]).records()
    digest = hashlib.blake2b(digest_size=32)
    for (label, _), (_, high, low) in zip(files, records, strict=True):
        digest.update(os.fsencode(label) + b"\0%016x%016x" % (high, low))
    return digest.hexdigest()


class _Cache:
    """Digests of files, and of those that were read before: a file of records (n, 3) uint64 in the user's cache."""

    def __init__(self, paths: list[Path]) -> None:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitcli" / "fingerprints"
        of_these = hashlib.sha256(os.fsencode(os.path.commonpath([path.absolute() for path in paths])))
        self.file = folder / f"{of_these.hexdigest()[:16]}.npy"
        self.paths, self.known = paths, dict[int, Record]()
        with suppress(OSError, ValueError, EOFError):  # there is none, or it is damaged: everything is read
            records = np.load(self.file, allow_pickle=False)
            if records.dtype == np.uint64 and records.ndim == 2 and records.shape[1] == 3:
                self.known = {record[0]: tuple(record) for record in records.tolist()}

    def records(self) -> list[Record]:
        """Of each of the files; kept for the next time."""
        with ThreadPoolExecutor(_NUM_THREADS) as pool:  # hashing and reading release the interpreter's lock
            records = list(pool.map(self._record, self.paths))
        self._keep(records)
        return records

    def _keep(self, records: list[Record]) -> None:
        """Replace the file by these records; a cache that cannot be written only costs time."""
        settled = [record for record in records if record[0]]
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            draft = self.file.with_suffix(f".{os.getpid()}.npy")
            np.save(draft, np.array(settled, dtype=np.uint64).reshape(-1, 3))
            draft.replace(self.file)

    def _record(self, path: Path) -> Record:
        """The record of one file; its first number is 0 if it must be read again next time."""
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                facts = f"{status.st_size} {status.st_mtime_ns} {status.st_ino} {status.st_dev}\0".encode()
                key = _number(hashlib.blake2b(facts + os.fsencode(path.absolute()), digest_size=8).digest())
                if key in self.known:
                    return self.known[key]
                found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
        except OSError as error:
            raise BadImage(path, f"cannot be read ({error.strerror})") from None
        settled = time.time_ns() - status.st_mtime_ns > _UNSETTLED_NS
        return key if settled else 0, _number(found[:8]), _number(found[8:])


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "big")
