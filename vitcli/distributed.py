"""Ranks and what they say to each other: process group, sums, flags, averaged buffers. One process: the same story."""

import gc
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store

from vitcli.errors import UsageError, VitcliError
from vitcli.process import end_with_torchrun
from vitcli.rendezvous import meet

T = TypeVar("T")

#: a rank that hangs longer than this ends the run instead of blocking it for torch's 30 minutes
TIMEOUT = timedelta(seconds=int(os.environ.get("VITCLI_TIMEOUT_SECONDS", "600")))

_alive_at = time.monotonic()


@dataclass(frozen=True)
class World:
    """Who this process is among those that train together."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device
    processes: tuple[tuple[str, int], ...] = ()  #: (host, process id) of each rank
    store: Store | None = None  #: what ranks can tell each other when their connections are broken

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def num_launched() -> int:
    """How many processes torchrun started, or the caller's process group has; 1 without both."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def choose_device(name: str, local_rank: int) -> torch.device:
    """`auto`: this rank's GPU, else Apple's, else the CPU.

    Raises:
        UsageError: there is no such device, or fewer GPUs than processes.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available[name]:
        raise UsageError(f"device {name} was asked for, but PyTorch sees none here", help="use --device auto")
    if name == "cuda" and local_rank >= torch.cuda.device_count():
        message = f"process {local_rank} on this machine has no GPU: there are {torch.cuda.device_count()}"
        raise UsageError(message, help="start as many processes as GPUs with torchrun --nproc_per_node")
    return torch.device(name, local_rank) if name == "cuda" else torch.device(name)


@contextmanager
def joined(device_name: str, distributed: bool) -> Iterator[World]:
    """Join the process group for the duration of the block (a world of one process when not `distributed`).

    A group that is there already (Ray Train makes one) is used, and stays.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0")) if distributed else 0
    device = choose_device(device_name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed:
        yield World(0, 1, 0, 1, device)
        return
    is_ours = not dist.is_initialized()
    store = _new_group(device) if is_ours else None
    _check_backend(device)
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    processes = tuple(gathered((platform.node(), os.getpid())))
    yield World(dist.get_rank(), dist.get_world_size(), local_rank, local_size, device, processes, store)
    # Not after an error: another rank may be in a collective, and leaving in order would wait for it.
    dist.barrier()
    if not is_ours:
        return
    gc.collect()  # DDP's cycles hold the group, whose threads would still run while the interpreter shuts down
    dist.destroy_process_group()


def _new_group(device: torch.device) -> Store:
    """Create the process group by torchrun's variables; the store in which its ranks met."""
    end_with_torchrun()
    device_id = device if device.type == "cuda" else None
    store, rank, size = meet(TIMEOUT)
    dist.init_process_group(
        _backend(device), timeout=TIMEOUT, device_id=device_id, store=store, rank=rank, world_size=size
    )
    return store


def _backend(device: torch.device) -> str:
    """Flags and counts are asked for over the CPU, so that no GPU is waited for."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def _check_backend(device: torch.device) -> None:
    """UsageError if the caller's process group has no connection for the tensors of the CPU or of `device`."""
    kinds = {word.partition(":")[0] for word in dist.get_backend_config().split(",")}
    if not {"cpu", device.type} <= kinds:
        message = f"the process group that exists already connects {', '.join(sorted(kinds))} tensors only"
        raise UsageError(message, help=f"create it with the backend {_backend(device)!r}")


def all_sum(values: Tensor) -> Tensor:
    """Sum over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Whether `flag` is set on any rank; asked over the CPU, so that no GPU is waited for."""
    if not dist.is_initialized():
        return flag
    flags = torch.tensor([flag], dtype=torch.int32)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    mark_alive()
    return bool(flags.item())


def mark_alive() -> None:
    """Called between steps and between batches of an evaluation, none of which should take long."""
    global _alive_at
    _alive_at = time.monotonic()


def seconds_since_alive() -> float:
    """How long this rank has been in its present step."""
    return time.monotonic() - _alive_at


def from_main(value: Any) -> Any:
    """Rank 0's `value`, on every rank."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def decided_on_main(decide: Callable[[], T]) -> T:
    """What `decide` returns on rank 0, on every rank; a VitcliError that it raises there is raised on all of them.

    It may take longer than TIMEOUT: rank 0 tells the others every second that it is still at work.
    """
    if not dist.is_initialized():
        return decide()
    outcome: list[Any] = []  # the result and the error, one of them None

    def work() -> None:
        try:
            outcome.extend((decide(), None))
        except BaseException as error:
            outcome.extend((None, error))

    worker = threading.Thread(target=work, daemon=True) if dist.get_rank() == 0 else None
    if worker:
        worker.start()
    while any_rank(_still_runs(worker)):
        pass
    if outcome and not isinstance(outcome[1], VitcliError | None):
        raise outcome[1]  # a fault of the program; the others notice that rank 0 is gone
    result, error = from_main(tuple(outcome))
    if error:
        raise error
    return result


def _still_runs(worker: threading.Thread | None) -> bool:
    """Whether it does after another second; False without a worker."""
    if worker:
        worker.join(timeout=1)
    return worker is not None and worker.is_alive()


def gathered(value: Any) -> list[Any]:
    """The `value` of every rank, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_rows(own: Tensor, total: int) -> Tensor:
    """(total, …) on every rank: row i is row i // size of the rank i % size, as `data.sampler.eval_indices` deals them.

    own: the rows of this rank.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        assert len(own) == total, f"{len(own)} rows of {total}"
        return own
    rank, size = dist.get_rank(), dist.get_world_size()
    assert len(own) == len(range(rank, total, size)), f"{len(own)} rows on rank {rank} of {size}, {total} in all"
    longest = -(-total // size)
    padded = own.new_zeros(longest, *own.shape[1:])
    padded[: len(own)] = own
    rows = own.new_empty(size * longest, *own.shape[1:])
    dist.all_gather_into_tensor(rows, padded)
    return rows.unflatten(0, (size, longest)).transpose(0, 1).flatten(0, 1)[:total]


@torch.no_grad()
def average_buffers(module: nn.Module) -> None:
    """Make floating-point buffers (BatchNorm's running statistics) the mean over ranks; plain DDP leaves them apart."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.reshape(-1).float() for buffer in buffers])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for buffer, mean in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))
