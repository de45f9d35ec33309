"""Runs `vitcli …` on a disk of its own that something happens to; the disk ends with the process.

    python -m tests.support.small_disk FOLDER SIZE EVENTS word …

FOLDER becomes a disk of SIZE, such as 2m. EVENTS, such as 3:fill,6:free or -, happen before training steps of these
numbers. The last line of the output is JSON: what the disk holds then.
"""

import contextlib
import ctypes
import json
import os
import resource
import shutil
import sys
from pathlib import Path

from tests.support.commands import run_here
from vitcli.engine import loop
from vitcli.engine.saving import settle

CLONE_NEWNS, CLONE_NEWUSER, MS_RDONLY, MS_REMOUNT = 0x20000, 0x10000000, 1, 32
libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> None:
    if result:
        sys.exit(f"no small disk here: {os.strerror(ctypes.get_errno())}")


def mount(folder: Path, flags: int, options: str) -> None:
    checked(libc.mount(b"none", bytes(folder), b"tmpfs", flags, options.encode()))


def own_namespace() -> None:
    """A mount of this process is seen by no other; inside, it is root."""
    uid, gid = os.getuid(), os.getgid()
    checked(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


EVENTS = {
    "fill": fill,
    "free": lambda disk: (disk / "filler").unlink(),
    "read_only": lambda disk: mount(disk, MS_REMOUNT | MS_RDONLY, ""),
    "delete": lambda disk: shutil.rmtree(disk / "run"),
    "limit": lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY)),
}


def main() -> None:
    disk, size, events = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    planned = dict(event.split(":") for event in events.split(",") if ":" in event)
    own_namespace()
    mount(disk, 0, f"size={size}")
    real = loop.train_step

    def train_step(training, batches):
        if event := planned.get(str(training.progress.step)):
            settle(training)  # the checkpoint of this step is written by then
            EVENTS[event](disk)
        return real(training, batches)

    loop.train_step = train_step
    os.chdir(disk)
    code = run_here(*sys.argv[4:])
    files = sorted(str(path.relative_to(disk)) for path in disk.rglob("*"))
    status = disk / "run" / "status.json"
    metrics = disk / "run" / "metrics.jsonl"
    found = {
        "files": files,
        "status": json.loads(status.read_text()) if status.exists() else None,
        "metrics": metrics.read_text().splitlines() if metrics.exists() else [],
    }
    print(json.dumps(found), flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
