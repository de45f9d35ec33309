"""What PyTorch raises when a machine fails becomes an error that says what happened and how to continue."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.distributed as dist

from vitcli.distributed import TIMEOUT, World, seconds_since_alive
from vitcli.engine.run_dir import word_of_another
from vitcli.errors import DiskError, LostContact, UsageError, VitcliError, is_disk_full

_NO_MEMORY = ("can't allocate memory", "not enough memory")
#: how long a dead rank may take to leave its last words, and the system to remove its process
_GRACE_SECONDS = 3.0


@contextmanager
def memory_in_words(cure: str) -> Iterator[None]:
    """Out of memory, on a GPU or in the machine.

    Raises:
        UsageError: with the `cure`.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if known or any(words in str(error) for words in _NO_MEMORY):
            raise UsageError("memory ran out", help=cure) from None
        raise


@contextmanager
def failures_in_words(run_dir: Path, world: World, global_batch: int) -> Iterator[None]:
    """Out of memory, a full disk, another rank that failed, died or hangs. Checkpoints are intact after each of them.

    Raises:
        UsageError: out of memory. DiskError: no room. LostContact: another rank died or hangs. VitcliError: the error
            that another rank ended with.
    """
    saved = any((run_dir / "checkpoints").glob("step-*"))
    resume = f"continue from the last checkpoint with: vitcli train --resume {run_dir}" if saved else "start it again"
    halve = f"halve --batch_size and keep the result the same with --global_batch_size {global_batch}"
    try:
        with memory_in_words(f"{halve}; --grad_checkpointing True saves more"):
            yield
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        help = "raise --batch_size or --image_resize, or drop the incomplete batch: --drop_remainder True"
        raise UsageError("BatchNorm cannot train on one image whose last map is one pixel", help=help) from None
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise DiskError(f"the disk that holds {run_dir} is full", help=f"free some space; {resume}") from None
    except RuntimeError as error:
        if cause := failure_of_another(error, run_dir, world, resume):
            raise cause from None
        raise


def failure_of_another(error: RuntimeError, run_dir: Path, world: World, resume: str) -> VitcliError | None:
    """What another rank did that raised `error` here; None: the error is this rank's own.

    Its text does not decide, for gloo raises plain RuntimeErrors. Evidence does: what another rank wrote before it
    ended, a process that is gone, the type of the error, or that this rank was blocked for the whole timeout.
    """
    if world.size == 1:
        return None
    blocked_seconds = seconds_since_alive()
    deadline = time.monotonic() + _GRACE_SECONDS
    while True:
        if word := word_of_another(run_dir, world.rank):
            return word
        for rank, (host, pid) in enumerate(world.processes):
            if host == platform.node() and not _is_running(pid):
                return LostContact(f"rank {rank} of the run died", help=resume)
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    if isinstance(error, dist.DistError):
        return LostContact("the connection to another rank of the run broke", help=resume)
    if blocked_seconds > TIMEOUT.total_seconds():
        seconds = int(TIMEOUT.total_seconds())
        return LostContact(f"another rank of the run did not answer within {seconds} seconds", help=resume)
    return None


def _is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
