"""The lock of a run's folder: one process group at a time trains in it, and others can ask whether one does.

A POSIX lock on RUN/.lock, because loader processes do not inherit it: they may outlive a killed training process by
seconds. Such a lock is gone as soon as its process closes the file, even through another descriptor; so a process that
holds the lock of a folder must never open that file again.
"""

import errno
import fcntl
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitcli.disk import disk_errors
from vitcli.errors import UsageError

_HELD: list[Any] = []  #: open lock files; closed by the end of the process


def lock(run_dir: Path) -> None:
    """Keep other processes out of the run until this one ends, for whatever reason.

    Raises:
        UsageError: another process trains in this folder.
    """
    file = (run_dir / ".lock").open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        other = file.read().strip() or "another process"
        file.close()
        raise UsageError(f"{run_dir} is in use by {other}", help="wait for it, or choose another --run_dir") from None
    except OSError:  # a file system without locks: nothing keeps others out, but nothing is wrong either
        file.close()
        return
    with disk_errors(".lock", run_dir):
        file.truncate(0)
        file.write(_holder())
        file.flush()
    _HELD.append(file)


def unlock() -> None:
    """Release what this process has locked."""
    while _HELD:
        with suppress(OSError):
            _HELD.pop().close()


def is_locking() -> bool:
    """Whether this process holds the lock of a run."""
    return bool(_HELD)


def replaced_by(run_dir: Path) -> str | None:
    """Who has locked the folder instead of this process, which held its lock; None: nobody has."""
    path = run_dir / ".lock"
    if _is_held_here(path):
        return None
    with suppress(FileNotFoundError):
        return path.read_text(errors="replace").strip() or "another process"
    return None


def user_of(run_dir: Path) -> str | None:
    """Who trains in this folder now, as its lock file says; None: nobody. Neither takes nor changes the lock."""
    path = run_dir / ".lock"
    if _is_held_here(path):
        return _holder()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        os.lockf(descriptor, os.F_TEST, 0)
    except OSError as error:
        taken = error.errno in (errno.EACCES, errno.EAGAIN)  # others: a file system without locks
        return (os.read(descriptor, 200).decode(errors="replace").strip() or "another process") if taken else None
    finally:
        os.close(descriptor)
    return None


def _holder() -> str:
    """What the lock file says while this process holds it."""
    return f"process {os.getpid()} on {platform.node()}"


def _is_held_here(path: Path) -> bool:
    with suppress(OSError):
        status = path.stat()
        return any(os.path.samestat(os.fstat(held.fileno()), status) for held in _HELD)
    return False
