"""Turns what PyTorch raises when a machine fails into an error that says what happened and how to go on."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from vitcli.errors import DiskError, Interrupted, UsageError, is_disk_full

_LOST_CONTACT = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Timed out waiting",
    "timed out",
    "gloo",
    "NCCL",
)


@contextmanager
def accidents_in_words(run_dir: Path, global_batch: int) -> Iterator[None]:
    """Out of memory, a full disk, another rank that died or hangs. Checkpoints are intact after each of them.

    Raises:
        UsageError: out of memory. DiskError: no room. Interrupted: contact to another rank is lost.
    """
    resume = f"go on from the last checkpoint with: vitcli train --resume {run_dir}"
    try:
        yield
    except torch.OutOfMemoryError:
        halve = f"halve --batch_size and keep the result the same by --global_batch_size {global_batch}"
        raise UsageError("the GPU ran out of memory", help=f"{halve}; --grad_checkpointing True saves more") from None
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise DiskError(f"the disk that holds {run_dir} is full", help=f"make room; {resume}") from None
    except RuntimeError as error:
        if not (dist.is_initialized() and any(words in str(error) for words in _LOST_CONTACT)):
            raise
        reason = re.sub(r"^\[[^]]*\] ", "", str(error).splitlines()[0]).split(". ")[0]
        raise Interrupted(f"another process of the run died or hangs: {reason}", help=resume) from None
