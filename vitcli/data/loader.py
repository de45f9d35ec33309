"""Turns positions in a run into batches, in worker processes that are told nothing but the position.

A batch is a pure function of (source, views, plan, seed, rank, position), so the loader has no state: it can start
at any step, the number of workers changes nothing, and workers read ahead across the end of an epoch. The workers make
each batch together, a piece each, so the first batch is there soon, and few of them are in memory. Workers are started
by the method that `multiprocessing` is set to: fork, spawn (the default on macOS) or forkserver (the default
of Python 3.14). Sources and transforms are therefore picklable.
"""

import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch.utils.data import DataLoader, Dataset

from vitcli.data.batch import Batch, join
from vitcli.data.batch_makers import BatchMaker, EvalBatches, TrainBatches
from vitcli.data.crops import CropTransform
from vitcli.data.decode import BadImage
from vitcli.data.eval_transform import EvalTransform
from vitcli.data.sampler import BatchPlan, eval_indices
from vitcli.data.source import Source
from vitcli.data.views import TrainTransform
from vitcli.data.workers import start_worker, starting_workers
from vitcli.errors import LostWorker
from vitcli.process import num_cores
from vitcli.recipe.schema import Dataset as Section

#: images of a piece, at least: handing one over takes time, however small it is
_SMALLEST_PIECE = 8
#: pieces that each worker makes ahead, and so batches that are in shared memory
_PIECES_AHEAD = 4
_CPU = torch.device("cpu")


def build_train_loader(
    source: Source,
    views: Sequence[TrainTransform],
    plan: BatchPlan,
    *,
    seed: int,
    rank: int,
    start_step: int,
    total_steps: int,
    num_workers: int,
    on_bad_image: Literal["fail", "skip"] = "fail",
    device: torch.device = _CPU,
) -> "Batches":
    """The batches of `rank` from `start_step` up to `total_steps`, in the order of steps and micro-steps, on `device`.

    Each sample is read once and augmented by each of `views`, whose random numbers are independent functions of (seed,
    epoch, sample, view).

    Args:
        on_bad_image: "fail": an unreadable image raises DataError. "skip": it is replaced by another sample, a function
            of (seed, epoch, index), and listed in `Batch.bad`.

    Raises:
        DataError: while iterating: an unreadable image. LostWorker: a worker process was killed.
    """
    batches = TrainBatches(source, views, plan, seed, rank, on_bad_image)
    positions = range(start_step * plan.accumulation, total_steps * plan.accumulation)
    return Batches(batches, positions, plan.batch_size, num_workers, device)


def build_eval_loader(
    source: Source,
    transform: EvalTransform | CropTransform,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    on_bad_image: Literal["fail", "list"] = "fail",
    device: torch.device = _CPU,
) -> "Batches":
    """Every image of `rank` once, in order, on `device`; the last batch may be smaller.

    A CropTransform makes batches (B, crops, C, H, W).

    Args:
        on_bad_image: "fail": an unreadable image raises DataError. "list": it is listed in `Batch.bad` and missing in
            its batch, which has no views if it has no other image.

    Raises:
        DataError: while iterating: an unreadable image. LostWorker: a worker process was killed.
    """
    batches = EvalBatches(source, transform, batch_size, eval_indices(len(source), rank, world_size), on_bad_image)
    return Batches(batches, range(len(batches)), batch_size, num_workers, device)


def num_workers(section: Section, local_world_size: int) -> int:
    """Decoding processes per training process: the recipe's number, or the default."""
    given = section.num_parallel_workers
    return default_num_workers(local_world_size) if given is None else given


def default_num_workers(local_world_size: int = 1) -> int:
    """Decoding processes per training process: its share of the machine's cores minus one for itself, at most 16."""
    return min(16, max(0, num_cores() // local_world_size - 1))


class Batches:
    """The batches at `positions`, in that order; can be iterated any number of times, each time from the beginning."""

    def __init__(
        self, maker: BatchMaker, positions: range, batch_size: int, num_workers: int, device: torch.device
    ) -> None:
        largest = max(1, batch_size // _SMALLEST_PIECE)
        self.positions, self.num_pieces, self.device = positions, min(max(1, num_workers), largest), device
        self.num_workers = min(num_workers, len(positions) * self.num_pieces)
        self.pieces = _Pieces(maker, self.num_pieces)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Batch]:
        try:
            pieces: list[Batch] = []
            for item in self._items():
                if isinstance(item, BadImage):
                    raise item
                pieces.append(item.to(self.device))
                if len(pieces) == self.num_pieces:
                    yield join(pieces)
                    pieces = []
        except (RuntimeError, ConnectionError, EOFError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            message = f"a decoding process was killed: {error}"
            cure = "lower num_parallel_workers or batch_size, or raise --shm-size in a container"
            raise LostWorker(message, help=f"usually memory ran out: {cure}") from None

    def _items(self) -> Iterator[Batch | BadImage]:
        """The iterator of torch's loader, without its handler of SIGCHLD.

        When a worker is killed, that handler raises in the middle of whatever the training process is doing, such as
        writing a checkpoint. Waiting for the next batch notices it too, within five seconds.
        """
        before = signal.getsignal(signal.SIGCHLD)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user may want more workers than cores
            loader = DataLoader(
                self.pieces,
                batch_size=None,  # an item is a whole piece
                sampler=range(self.positions.start * self.num_pieces, self.positions.stop * self.num_pieces),
                num_workers=self.num_workers,
                prefetch_factor=_PIECES_AHEAD if self.num_workers else None,
                pin_memory=self.device.type == "cuda",
                worker_init_fn=start_worker,
                generator=torch.Generator(),  # the default is the generator that dropout draws from
            )
            with starting_workers() if self.num_workers else nullcontext():
                items = iter(loader)
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
        return items


class _Pieces(Dataset):
    """Number of a piece, counted over all batches, -> the piece; torch's loader sees nothing else."""

    def __init__(self, maker: BatchMaker, num_pieces: int) -> None:
        self.maker, self.num_pieces = maker, num_pieces

    def __getitem__(self, number: int) -> Batch | BadImage:
        return self.maker.make(*divmod(number, self.num_pieces), self.num_pieces)
