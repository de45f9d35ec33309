"""Turns positions in a run into batches, in worker processes that are told nothing but the position.

A batch is a pure function of (source, views, plan, seed, rank, position), so the loader has no state: it can start
at any step, the number of workers changes nothing, and workers read ahead across the end of an epoch. Workers are
started by the method that `multiprocessing` is set to: fork, spawn (the default on macOS) or forkserver (the default
of Python 3.14). Sources and transforms are therefore picklable.
"""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing import resource_tracker
from typing import Literal, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vitcli.data.bands import Picture
from vitcli.data.batch import BadSample, Batch
from vitcli.data.crops import CropTransform
from vitcli.data.decode import BadImage
from vitcli.data.eval_transform import EvalTransform
from vitcli.data.pixel_format import UnfitImage
from vitcli.data.sampler import BatchPlan, eval_indices
from vitcli.data.source import Source
from vitcli.data.streams import stream
from vitcli.data.transforms import to_uint8_tensor
from vitcli.data.views import TrainTransform
from vitcli.errors import DataError
from vitcli.recipe.schema import Dataset as Section

Made = TypeVar("Made")

_ATTEMPTS = 20
#: sent to the whole process group when a run is stopped: by a terminal, a batch system, torchrun
_STOP_SIGNALS = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM}


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
    pin_memory: bool = False,
) -> "Batches":
    """The batches of `rank` from `start_step` up to `total_steps`, in the order of steps and micro-steps.

    Each sample is read once and augmented by each of `views`, whose random numbers are independent functions of (seed,
    epoch, sample, view).

    Args:
        on_bad_image: "fail": an unreadable image raises DataError. "skip": it is replaced by another sample, a function
            of (seed, epoch, index), and listed in `Batch.bad`.

    Raises:
        DataError: while iterating: an unreadable image, or a worker process was killed.
    """
    batches = _TrainBatches(source, views, plan, seed, rank, on_bad_image)
    positions = range(start_step * plan.accumulation, total_steps * plan.accumulation)
    return Batches(batches, positions, num_workers, pin_memory)


def build_eval_loader(
    source: Source,
    transform: EvalTransform | CropTransform,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> "Batches":
    """Every image of `rank` once, in order; the last batch may be smaller.

    A CropTransform makes batches (B, crops, C, H, W).

    Raises:
        DataError: while iterating: an unreadable image, or a worker process was killed.
    """
    batches = _EvalBatches(source, transform, batch_size, eval_indices(len(source), rank, world_size))
    return Batches(batches, range(len(batches)), num_workers, pin_memory)


def num_workers(section: Section, local_world_size: int) -> int:
    """Decoding processes per training process: the recipe's number, or the default."""
    given = section.num_parallel_workers
    return default_num_workers(local_world_size) if given is None else given


def default_num_workers(local_world_size: int = 1) -> int:
    """Decoding processes per training process: its share of the machine's cores minus one for itself, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, max(0, cores // local_world_size - 1))


class Batches:
    """The batches at `positions`, in that order; can be iterated any number of times, each time from the beginning."""

    def __init__(self, source: Dataset, positions: range, num_workers: int, pin_memory: bool) -> None:
        self.source, self.positions, self.pin_memory = source, positions, pin_memory
        self.num_workers = min(num_workers, len(positions))

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Batch]:
        try:
            for item in self._items():
                if isinstance(item, BadImage):
                    raise item
                yield item
        except (RuntimeError, ConnectionError, EOFError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            message = f"a decoding process was killed: {error}"
            cure = "lower num_parallel_workers or batch_size, or raise --shm-size in a container"
            raise DataError(message, help=f"usually memory ran out: {cure}") from None

    def _items(self) -> Iterator[Batch | BadImage]:
        """The iterator of torch's loader, without its handler of SIGCHLD.

        When a worker is killed, that handler raises in the middle of whatever the training process is doing, such as
        writing a checkpoint. Waiting for the next batch notices it too, within five seconds.
        """
        before = signal.getsignal(signal.SIGCHLD)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user may want more workers than cores
            loader = DataLoader(
                self.source,
                batch_size=None,  # an item is a whole batch
                sampler=self.positions,
                num_workers=self.num_workers,
                pin_memory=self.pin_memory,
                worker_init_fn=_start_worker,
                generator=torch.Generator(),  # the default is the generator that dropout draws from
            )
            with _starting_workers() if self.num_workers else nullcontext():
                items = iter(loader)
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
        return items


class _TrainBatches(Dataset):
    """Position (counted in micro-steps from the start of the run) -> Batch, or the BadImage that prevents it."""

    def __init__(
        self, source: Source, views: Sequence[TrainTransform], plan: BatchPlan, seed: int, rank: int, on_bad_image: str
    ) -> None:
        self.source, self.plan, self.seed, self.rank = source, plan, seed, rank
        #: name of the random stream of each view -> the view
        self.views = {f"view {number}" if number else "sample": view for number, view in enumerate(views)}
        self.attempts = _ATTEMPTS if on_bad_image == "skip" else 0

    def __getitem__(self, position: int) -> Batch | BadImage:
        step, micro = divmod(position, self.plan.accumulation)
        epoch, step_in_epoch = self.plan.epoch_and_step(step)
        indices, repeats = (numbers.tolist() for numbers in self.plan.draws(epoch, step_in_epoch, micro, self.rank))
        bad: list[BadSample] = []
        try:
            samples = [self._load(epoch, *draw, bad) for draw in zip(indices, repeats, strict=True)]
        except BadImage as error:
            return error
        views = tuple(_stacked(images) for images in zip(*(images for _, images in samples), strict=True))
        labels = _labels(self.source, [index for index, _ in samples])
        return Batch(views, *labels, tuple(bad), epoch, step, micro, self.plan.block(micro, self.rank))

    def _load(self, epoch: int, index: int, repeat: int, bad: list[BadSample]) -> tuple[int, list[Picture]]:
        """The views of the sample `index`, or of the first readable one of its replacements.

        A sample that is drawn again in its epoch (`repeat` > 0) is augmented by other random numbers.
        """
        draw = (index, repeat) if repeat else (index,)
        attempt = 0

        def make(image: Picture) -> list[Picture]:
            return [view(image, stream(name, self.seed, epoch, *draw)) for name, view in self.views.items()]

        while True:
            try:
                return index, _made(self.source, index, make)
            except BadImage as error:
                if attempt == self.attempts:
                    raise
                substitute = stream("substitute", self.seed, epoch, draw[0], attempt).randrange(len(self.source))
                bad.append(BadSample(index, self.source.name(index), error.reason, substitute))
                index, attempt = substitute, attempt + 1


class _EvalBatches(Dataset):
    """Number of a batch -> Batch, or the BadImage that prevents it."""

    def __init__(
        self, source: Source, transform: EvalTransform | CropTransform, batch_size: int, indices: Sequence[int]
    ) -> None:
        self.source, self.transform = source, transform
        self.chunks = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Batch | BadImage:
        indices = list(self.chunks[number])
        try:
            made = [_made(self.source, index, self.transform) for index in indices]
        except BadImage as error:
            return error
        crops = [one if isinstance(one, list) else [one] for one in made]
        images = _stacked([crop for of_one_image in crops for crop in of_one_image])
        if isinstance(made[0], list):
            images = images.unflatten(0, (len(indices), -1))
        return Batch((images,), *_labels(self.source, indices))


def _made(source: Source, index: int, make: Callable[[Picture], Made]) -> Made:
    """What `make` makes of the image `index`. BadImage: it cannot be read, or the network cannot take it."""
    image = source.load(index)
    try:
        return make(image)
    except UnfitImage as error:
        raise BadImage(source.name(index), error.message, error.help) from None


def _stacked(images: Sequence[Picture]) -> torch.Tensor:
    """(B, C, H, W) uint8; in a worker, in memory that it shares with the training process."""
    width, height = images[0].size
    pixels = torch.empty(len(images), len(images[0].getbands()), height, width, dtype=torch.uint8)
    if get_worker_info() is not None:
        pixels.share_memory_()
    for row, image in enumerate(images):
        pixels[row] = to_uint8_tensor(image)
    return pixels


def _labels(source: Source, indices: list[int]) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Targets, None without labels, and indices."""
    targets = None if source.targets is None else torch.from_numpy(source.targets[indices])
    return targets, torch.tensor(indices)


@contextmanager
def _starting_workers() -> Iterator[None]:
    """Processes that are started meanwhile (workers, the server of forkserver) begin with the stop signals blocked.

    Otherwise one could end a worker before it reaches `_start_worker`: a new interpreter needs seconds to get there.
    """
    method = multiprocessing.get_start_method()
    if method == "forkserver":
        multiprocessing.set_forkserver_preload(["__main__", __name__])  # so torch is imported once, not in each worker
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        if method != "fork":
            resource_tracker.ensure_running()  # unblocks two of the signals when it starts that process
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker_id: int) -> None:
    """Use one thread, and leave it to the training process to stop the run and its workers.

    Stop signals go to the whole process group. A worker that obeyed them would take away the data that the last step
    before the checkpoint needs.
    """
    torch.set_num_threads(1)
    for number in _STOP_SIGNALS - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS - {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()
    else:  # macOS does not say who sent a signal
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def _end_with_parent() -> None:
    """Exit on a SIGTERM that the training process itself sends, or within five seconds of its end.

    A worker of forkserver would not notice that end by its parent's number, which is that of the server.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    while parent.is_alive():
        received = signal.sigtimedwait({signal.SIGTERM}, 5)
        if received is not None and received.si_pid == parent.pid:
            break
    os._exit(0)
