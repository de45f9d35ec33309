"""Turns positions in a run into batches, in worker processes that know nothing but the position they are asked for.

A batch is a pure function of (images, transform, plan, seed, rank, position), so the loader has no state: it can start
at any step, the number of workers changes nothing, and workers read ahead across the end of an epoch.
"""

import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vitcli.data.crops import CropTransform
from vitcli.data.decode import BadImage
from vitcli.data.eval_transform import EvalTransform
from vitcli.data.images import ImageSet
from vitcli.data.sampler import BatchPlan, eval_indices
from vitcli.data.streams import stream
from vitcli.data.transforms import TrainTransform, to_uint8_tensor
from vitcli.errors import DataError

_ATTEMPTS = 20


@dataclass(frozen=True)
class BadSample:
    """An unreadable image and the sample that took its place (None: none did)."""

    index: int
    name: str
    reason: str
    replaced_by: int | None = None


@dataclass
class Batch:
    """images (B, C, H, W) uint8, labels (B,) int64, indices (B,) int64: which samples these are after replacement.

    An evaluation by many crops has images (B, crops, C, H, W).
    Training batches say where they belong: `step` and `epoch` of the run, `micro` within the step, and `block` within
    the global batch. `bad` lists the images that could not be read.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    bad: list[BadSample] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    micro: int = 0
    block: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self, device: str | torch.device | None = None) -> "Batch":
        self.images, self.labels = self.images.pin_memory(), self.labels.pin_memory()
        return self


def build_train_loader(
    images: ImageSet,
    transform: TrainTransform,
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
    """The batches of `rank` from `start_step` up to `total_steps`, step by step, in each step micro-step by micro-step.

    An unreadable image raises DataError ("fail"), or is replaced by another sample that is a function of (seed, epoch,
    index) and listed in `Batch.bad` ("skip"). DataError, too, when a worker process is killed.
    """
    source = _TrainBatches(images, transform, plan, seed, rank, on_bad_image)
    positions = range(start_step * plan.accumulation, total_steps * plan.accumulation)
    return Batches(source, positions, num_workers, pin_memory)


def build_eval_loader(
    images: ImageSet,
    transform: EvalTransform | CropTransform,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> "Batches":
    """Every image of `rank` once, in order; the last batch may be smaller. Raises DataError for an unreadable image.

    A transform that makes several crops of an image makes batches (B, crops, C, H, W).
    """
    source = _EvalBatches(images, transform, batch_size, eval_indices(len(images), rank, world_size))
    return Batches(source, range(len(source)), num_workers, pin_memory)


def default_num_workers(local_world_size: int = 1) -> int:
    """Decoding processes per training process: its share of this machine's cores less one for itself, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, max(0, cores // local_world_size - 1))


class Batches:
    """The batches at `positions`, in that order; can be iterated any number of times, each time from the beginning."""

    def __init__(self, source: Dataset, positions: range, num_workers: int, pin_memory: bool) -> None:
        self.source = source
        self.positions = positions
        self.num_workers = min(num_workers, len(positions))
        self.pin_memory = pin_memory

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
            raise DataError(
                f"a decoding process was killed: {error}",
                help="most often memory ran out: fewer num_parallel_workers, a smaller batch_size, "
                "or (in a container) more --shm-size",
            ) from None

    def _items(self) -> Iterator[Batch | BadImage]:
        """torch's iterator, without its handler of SIGCHLD: that raises in the middle of whatever the training process
        is doing when a worker is killed (writing a checkpoint, say). Waiting for the next batch finds it out as well,
        within five seconds."""
        before = signal.getsignal(signal.SIGCHLD)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # more workers than cores is for the user to decide
            loader = DataLoader(
                self.source,
                batch_size=None,  # an item is a whole batch
                sampler=self.positions,
                num_workers=self.num_workers,
                collate_fn=_as_it_is,
                pin_memory=self.pin_memory,
                worker_init_fn=_start_worker,
                generator=torch.Generator(),  # or it would draw from the generator that dropout uses
            )
            items = iter(loader)
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
        return items


class _TrainBatches(Dataset):
    """Position (counted in micro-steps from the start of the run) -> Batch, or the BadImage that prevents it."""

    def __init__(
        self, images: ImageSet, transform: TrainTransform, plan: BatchPlan, seed: int, rank: int, on_bad_image: str
    ) -> None:
        self.images, self.transform, self.plan = images, transform, plan
        self.seed, self.rank = seed, rank
        self.attempts = _ATTEMPTS if on_bad_image == "skip" else 0

    def __getitem__(self, position: int) -> Batch | BadImage:
        step, micro = divmod(position, self.plan.accumulation)
        epoch, step_in_epoch = self.plan.epoch_and_step(step)
        indices, repeats = (numbers.tolist() for numbers in self.plan.draws(epoch, step_in_epoch, micro, self.rank))
        bad: list[BadSample] = []
        try:
            loaded = [self._load(epoch, *draw, bad) for draw in zip(indices, repeats, strict=True)]
        except BadImage as error:
            return error
        batch = _collate(self.images, [index for index, _ in loaded], [image for _, image in loaded])
        batch.bad, batch.epoch, batch.step, batch.micro = bad, epoch, step, micro
        batch.block = self.plan.block(micro, self.rank)
        return batch

    def _load(self, epoch: int, index: int, repeat: int, bad: list[BadSample]) -> tuple[int, Image.Image]:
        """The sample `index`, or the first readable one of those that may take its place.

        A sample that is drawn again in its epoch (`repeat` > 0) is augmented by other numbers.
        """
        wanted, draw = index, (index, repeat) if repeat else (index,)
        for attempt in range(self.attempts + 1):
            try:
                image = self.images.load(index)
            except BadImage as error:
                if attempt == self.attempts:
                    raise
                substitute = stream("substitute", self.seed, epoch, wanted, attempt).randrange(len(self.images))
                bad.append(BadSample(index, self.images.name(index), error.reason, substitute))
                index = substitute
            else:
                return index, self.transform(image, stream("sample", self.seed, epoch, *draw))
        raise AssertionError


class _EvalBatches(Dataset):
    """Number of a batch -> Batch, or the BadImage that prevents it."""

    def __init__(
        self, images: ImageSet, transform: EvalTransform | CropTransform, batch_size: int, indices: Sequence[int]
    ) -> None:
        self.images, self.transform = images, transform
        self.chunks = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Batch | BadImage:
        indices = list(self.chunks[number])
        try:
            made = [self.transform(self.images.load(index)) for index in indices]
        except BadImage as error:
            return error
        crops = [one if isinstance(one, list) else [one] for one in made]
        batch = _collate(self.images, indices, [crop for of_one_image in crops for crop in of_one_image])
        if isinstance(made[0], list):
            batch.images = batch.images.unflatten(0, (len(indices), -1))
        return batch


def _collate(images: ImageSet, indices: list[int], loaded: list[Image.Image]) -> Batch:
    width, height = loaded[0].size
    pixels = torch.empty(len(loaded), len(loaded[0].getbands()), height, width, dtype=torch.uint8)
    if get_worker_info() is not None:
        pixels.share_memory_()  # written where the training process reads it
    for row, image in enumerate(loaded):
        pixels[row] = to_uint8_tensor(image)
    return Batch(pixels, torch.from_numpy(images.labels[indices]), torch.tensor(indices))


def _as_it_is(item: object) -> object:
    return item


def _start_worker(worker_id: int) -> None:
    """One thread, and no part in the stopping of the run: the training process decides when its workers end.

    Stop signals go to the whole process group (a terminal's Ctrl-C, torchrun's SIGTERM, a batch system's warning);
    workers that obeyed them would take away the data that the last step before the checkpoint needs. Only a SIGTERM
    from the training process itself is obeyed.
    """
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey_parent_only, args=(os.getppid(),), daemon=True).start()


def _obey_parent_only(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
