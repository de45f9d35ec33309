"""The index of an archive: its files by name, and where their bytes are. Zip and tar differ in how a file is read."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from vitcli.data.packed_names import PackedNames
from vitcli.data.random_access import LargeFile
from vitcli.errors import DataError

_DAMAGED = "copy or download it again"


class Members:
    """The regular files in the archive `file`, sorted by name; without a million objects, see `PackedNames`.

    Args:
        rows: name, position and size in bytes of each file, and further whole numbers if a subclass needs them.
        ignored: counts members that are not regular files, by the reason.

    Raises:
        DataError: two files have one name, or there are none.
    """

    def __init__(self, file: LargeFile, rows: Iterable[tuple[str, tuple[int, ...]]], ignored: Counter[str]) -> None:
        safe = sorted((name, numbers) for raw, numbers in rows if (name := _inside(raw, ignored)))
        names = [name for name, _ in safe]
        if not names:
            raise DataError(f"{file} has no files in it", help=_DAMAGED)
        for name, following in pairwise(names):
            if name == following:
                raise DataError(f"{file} has two members of the name {name!r}", help="make the archive anew")
        self.file, self.names, self.ignored = file, PackedNames(names), ignored
        self.numbers = np.array([numbers for _, numbers in safe], dtype=np.int64).reshape(len(names), -1)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, number: int, most: int) -> bytes:
        """The whole file; DataError if it is damaged, or larger than `most` bytes."""
        raise NotImplementedError

    #: whether `_identity` has a checksum of each file
    has_checksums = False

    def digests(self, numbers: np.ndarray) -> dict[str, str]:
        """`contents_sha256` over what does not change when the archive is copied, `sha256` also over its time."""
        contents = hashlib.sha256("\0".join(sorted(map(self._identity, numbers.tolist()))).encode("utf-8", "replace"))
        whole = hashlib.sha256(contents.digest() + str(self.file.mtime_ns).encode())
        return {"contents_sha256": contents.hexdigest(), "sha256": whole.hexdigest()}

    def _identity(self, number: int) -> str:
        """Name and size of a file, and what else is known of its contents."""
        raise NotImplementedError


def _inside(name: str, ignored: Counter[str]) -> str | None:
    """The name of a member without `./`; None, and counted, if it leads out of the archive or is none."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or not parts:
        ignored["unsafe name"] += 1
        return None
    return "/".join(parts)


def check_size(what: str, size: int, most: int) -> None:
    """DataError for more than `most` bytes; `what` begins the message."""
    if size > most:
        message = f"{what} {size:,} bytes, more than an image of max_image_pixels needs"
        raise DataError(message, help="raise --max_image_pixels if it is an image")


def damaged(file: LargeFile, reason: str) -> DataError:
    return DataError(f"{file} {reason}", help=_DAMAGED)
