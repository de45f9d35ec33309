"""Writing where the disk may refuse: every refusal in words, what only passes tried again, no file half written."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from vitcli.errors import DiskError, UsageError, errno_of

Result = TypeVar("Result")

#: what an error number means, and what to do about it
_MEANINGS = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "delete something of yours, or ask for a larger quota"),
    errno.EFBIG: ("a file would exceed the limit on its size (ulimit -f)", "raise the limit"),
    errno.EROFS: ("the file system is read-only", "make it writable"),
    errno.EACCES: ("permission is denied", "make the folder writable"),
    errno.EPERM: ("permission is denied", "make the folder writable"),
    errno.EIO: ("the disk reports an input/output error", "check the disk"),
}
#: what may pass by itself, and the seconds to wait before each new attempt
_PASSING = (errno.EIO, errno.EINTR)
_WAITS = (0.05, 0.2, 0.8)


class Faults:
    """What the disk refused since it was last asked for. Training goes on until the next step boundary asks."""

    def __init__(self) -> None:
        self._first: DiskError | None = None

    def __bool__(self) -> bool:
        return self._first is not None

    def note(self, error: DiskError) -> None:
        self._first = self._first or error

    def take(self) -> DiskError | None:
        """The first fault; it is forgotten here."""
        first, self._first = self._first, None
        return first


class AppendedFile:
    """A file that only grows. What the disk refuses is kept in memory, noted in `faults`, and written with the next."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self.path = path
        self.faults = faults
        self._waiting = b""

    def append(self, content: bytes) -> None:
        self._waiting += content
        try:
            with disk_errors(self.path.name, self.path.parent):
                tried_again(self._write)
        except DiskError as error:
            self.faults.note(error)

    def _write(self) -> None:
        """All that waits, or nothing: a part of a line would damage the next one."""
        with open(self.path, "ab", buffering=0) as file:
            end = file.tell()
            left = memoryview(self._waiting)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                with suppress(OSError):
                    file.truncate(end)
                raise
        self._waiting = b""


def check_writable(file: Path | None) -> None:
    """UsageError, before anything is computed, if a result cannot be written to `file`."""
    if file and (file.is_dir() or not file.parent.is_dir()):
        reason = "it is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise UsageError(f"cannot write {file}: {reason}")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write through a temporary file, so that the old content stays until the new one is complete.

    Raises:
        DiskError: the disk refuses; the old content is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")

    def attempt() -> None:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)

    with disk_errors(path.name, path.parent):
        try:
            tried_again(attempt)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def tried_again(attempt: Callable[[], Result]) -> Result:
    """What `attempt` returns; where the disk reports a fault that may pass, it is called again, three times at most.

    The attempt must begin anew: after a failed fsync, Linux forgets what it could not write, and a second fsync of the
    same file succeeds without it.
    """
    for seconds in _WAITS:
        try:
            return attempt()
        except Exception as error:
            if errno_of(error) not in _PASSING:
                raise
            time.sleep(seconds)
    return attempt()


@contextmanager
def disk_errors(what: str, folder: Path, *, num_bytes: int | None = None, then: str = "") -> Iterator[None]:
    """An error of the disk while `what` is written to `folder` becomes a DiskError.

    Args:
        num_bytes: how much has to be written; the message compares it with what is free.
        then: what to do when the disk can be written again.
    """
    try:
        yield
    except Exception as error:
        if errno_of(error) is None and not isinstance(error, OSError):
            raise
        raise _in_words(error, what, folder, num_bytes, then) from None


def _in_words(error: Exception, what: str, folder: Path, num_bytes: int | None, then: str) -> DiskError:
    number = errno_of(error)
    if number in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE) and not folder.is_dir():
        return DiskError(f"{folder} is gone: it was deleted or moved while it was in use", help="start a new run")
    meaning, cure = _MEANINGS.get(number or 0, (os.strerror(number) if number else str(error), ""))
    need = f" ({_need(number, folder, num_bytes)})" if num_bytes and number in _MEANINGS else ""
    help = "; ".join(filter(None, (cure, then)))
    return DiskError(f"{meaning}: {what} cannot be written to {folder}{need}", help=help or None)


def _need(number: int | None, folder: Path, num_bytes: int) -> str:
    """How much is needed; of what is free, a quota or a limit says nothing."""
    need = f"it needs {num_bytes / 2**20:.1f} MiB"
    if number != errno.ENOSPC:
        return need
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    return f"{need}, {free / 2**20:.1f} MiB are free"
