"""Images in the middle of large files, which any thread of any process reads without disturbing the others."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vitcli.data.decode import BadImage
from vitcli.data.source import EncodedImages
from vitcli.errors import DataError

#: bytes of the file of an image for each pixel that an image may have: as many as a decoded one needs at most
_BYTES_PER_PIXEL = 8
#: files that a process keeps open, far below the usual limit of 1,024
_NUM_OPEN = 128


@dataclass(frozen=True)
class LargeFile:
    """A file as it was when the data set was opened; one that changed since is not read."""

    path: str
    size: int  #: bytes
    mtime_ns: int

    def __str__(self) -> str:
        return self.path

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer at the end of the file only.

        Raises:
            DataError: the file changed or cannot be read.
        """
        try:
            descriptor, parts = _opened(self), []
            status = os.fstat(descriptor.number)
            if (status.st_size, status.st_mtime_ns) != (self.size, self.mtime_ns):
                raise DataError(f"{self.path} was changed while it was in use", help="start again")
            while size > 0 and (part := os.pread(descriptor.number, size, offset)):
                parts.append(part)
                offset, size = offset + len(part), size - len(part)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)


def large_file(path: str | Path) -> LargeFile:
    """The file `path` as it is now; DataError if there is none."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{os.fspath(path)} cannot be read: {error.strerror}", help="check --data_dir") from None
    return LargeFile(os.fspath(path), status.st_size, status.st_mtime_ns)


class ImagesInFiles(EncodedImages):
    """Images whose bytes are parts of large files. A subclass defines `_read` instead of `_bytes`."""

    def _bytes(self, row: int) -> bytes:
        try:
            return self._read(row)
        except DataError as error:
            raise BadImage(self._name(row), error.message, error.help) from None

    def _read(self, row: int) -> bytes:
        """The whole file of an image. May raise DataError."""
        raise NotImplementedError


def most_bytes(max_image_pixels: int) -> int:
    """The largest file that may be an image of that many pixels; a larger one is not read into memory."""
    return _BYTES_PER_PIXEL * max_image_pixels


class _Descriptor:
    """Closed when nobody uses it any more: also while another thread reads, it may be forgotten here."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@lru_cache(maxsize=_NUM_OPEN)
def _opened(file: LargeFile) -> _Descriptor:
    """Opened once in each process, at the first use; a forked one shares it, which is safe without a position."""
    return _Descriptor(file.path)
