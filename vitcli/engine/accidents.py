"""Turns what PyTorch raises when a machine fails into an error that says what happened and how to go on."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from vitcli.errors import DiskError, LostContact, UsageError, is_disk_full

_LOST_CONTACT = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Timed out waiting",
    "timed out",
    "gloo",
    "NCCL",
)


_NO_MEMORY = ("can't allocate memory", "not enough memory")


@contextmanager
def memory_in_words(cure: str) -> Iterator[None]:
    """Out of memory, on a GPU or in the machine.

    Raises:
        UsageError: with the `cure`.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise UsageError("memory ran out", help=cure) from None
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_MEMORY):
            raise
        raise UsageError("memory ran out", help=cure) from None


@contextmanager
def accidents_in_words(run_dir: Path, global_batch: int) -> Iterator[None]:
    """Out of memory, a full disk, another rank that died or hangs. Checkpoints are intact after each of them.

    Raises:
        UsageError: out of memory. DiskError: no room. LostContact: to another rank.
    """
    saved = any((run_dir / "checkpoints").glob("step-*"))
    resume = f"go on from the last checkpoint with: vitcli train --resume {run_dir}" if saved else "start it again"
    halve = f"halve --batch_size and keep the result the same by --global_batch_size {global_batch}"
    try:
        with memory_in_words(f"{halve}; --grad_checkpointing True saves more"):
            yield
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        help = "raise --batch_size or --image_resize, or leave out the incomplete batch: --drop_remainder True"
        raise UsageError("BatchNorm cannot train on one image whose last map is one pixel", help=help) from None
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise DiskError(f"the disk that holds {run_dir} is full", help=f"make room; {resume}") from None
    except RuntimeError as error:
        if not (dist.is_initialized() and any(words in str(error) for words in _LOST_CONTACT)):
            raise
        reason = re.sub(r"^\[[^]]*\] ", "", str(error).splitlines()[0]).split(". ")[0]
        raise LostContact(f"another process of the run died or hangs: {reason}", help=resume) from None
