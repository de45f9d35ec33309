"""What PyTorch raises when a machine fails becomes an error that says what happened and how to continue."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from vitcli.disk import disk_errors
from vitcli.distributed import TIMEOUT, World, seconds_since_alive
from vitcli.engine.run_dir import how_to_continue, is_running, word_of_another
from vitcli.engine.training import Progress
from vitcli.errors import LostContact, UsageError, VitcliError, is_disk_full

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
def failures_in_words(run_dir: Path, world: World, global_batch: int, progress: Progress) -> Iterator[None]:
    """Out of memory, a GPU that failed, a full disk, another rank that failed, died or hangs.

    Checkpoints are intact after each of them.

    Raises:
        UsageError: out of memory. DiskError: no room. LostContact: another rank died or hangs. VitcliError: this rank's
            GPU failed, or the error that another rank ended with.
    """
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
        with disk_errors("a file", run_dir, then=how_to_continue(run_dir)):
            raise
    except RuntimeError as error:
        cause = failure_of_another(error, run_dir, world)
        if cause is None and isinstance(error, torch.AcceleratorError):
            cause = failure_of_gpu(error, how_to_continue(run_dir))
        if cause is None:
            raise
        if isinstance(cause, LostContact):
            cause.message += f"; the last complete step is {progress.step}"
            cause.help = how_to_continue(run_dir)
        raise cause from None


def failure_of_another(error: RuntimeError, run_dir: Path, world: World) -> VitcliError | None:
    """What another rank did that raised `error` here; None: the error is this rank's own.

    Its text does not decide, for gloo raises plain RuntimeErrors. Evidence does: what another rank wrote before it
    ended, a process that is gone, the type of the error, or that this rank was blocked for the whole timeout.
    """
    if world.size == 1:
        return None
    blocked_seconds = seconds_since_alive()
    if world.store:
        world.store.set(f"failed/{world.rank}", "")
    deadline = time.monotonic() + _GRACE_SECONDS
    while True:
        if word := word_of_another(run_dir, world.rank):
            return word
        for rank, (host, pid) in enumerate(world.processes):
            if host == platform.node() and not is_running(pid):
                return LostContact(f"rank {rank} of the run died")
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    silent = ", ".join(map(str, silent_ranks(world)))
    who = f"rank {silent}" if silent else "another rank"
    if blocked_seconds > TIMEOUT.total_seconds():
        return LostContact(f"{who} of the run did not answer within {int(TIMEOUT.total_seconds())} seconds")
    if isinstance(error, dist.DistError):
        return LostContact(f"the connection to {who} of the run broke")
    return None


def failure_of_gpu(error: torch.AcceleratorError, then: str) -> VitcliError:
    """A kernel failed, such as one that touched memory it does not own: this process cannot use the GPU any more."""
    cure = "if it fails again, use PyTorch's kernels only: --fast_kernels False"
    where = "CUDA_LAUNCH_BLOCKING=1 shows which operation failed"
    return VitcliError(f"the GPU failed: {str(error).splitlines()[0]}", help=f"{then}; {cure}. {where}")


def silent_ranks(world: World) -> list[int]:
    """The ranks that have not noticed a failure, as those do that wait for a rank: they hang, or are out of reach."""
    silent = []
    for rank in range(world.size):
        try:
            if world.store and rank != world.rank:
                world.store.wait([f"failed/{rank}"], timedelta(milliseconds=100))
        except dist.DistError:
            silent.append(rank)
    return silent
