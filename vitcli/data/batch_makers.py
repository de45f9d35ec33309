"""Makes training and evaluation batches: reads, augments and stacks the images at a position, whole or in pieces."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch.utils.data import get_worker_info

from vitcli.data.bands import Picture
from vitcli.data.batch import BadSample, Batch
from vitcli.data.crops import CropTransform
from vitcli.data.decode import BadImage
from vitcli.data.eval_transform import EvalTransform
from vitcli.data.pixel_format import UnfitImage
from vitcli.data.pixels import Pixels
from vitcli.data.sampler import BatchPlan
from vitcli.data.source import Source
from vitcli.data.streams import stream
from vitcli.data.transforms import channels_first
from vitcli.data.views import TrainTransform

Image = Picture | Pixels
Item = TypeVar("Item")
SomeView = TypeVar("SomeView", bound=TrainTransform)

_ATTEMPTS = 20


class BatchMaker(ABC):
    """Makes the batch at a position, whole or in pieces that make the same images one after another."""

    @abstractmethod
    def make(self, position: int, piece: int, num_pieces: int) -> Batch | BadImage:
        """One of `num_pieces` pieces of the batch at `position`, which may have no image; or what prevents it."""


class TrainBatches(BatchMaker):
    """Positions are counted in micro-steps from the start of the run."""

    def __init__(
        self, source: Source, views: Sequence[TrainTransform], plan: BatchPlan, seed: int, rank: int, on_bad_image: str
    ) -> None:
        self.source, self.plan, self.seed, self.rank = source, plan, seed, rank
        self.views = stream_names(views)
        self.attempts = _ATTEMPTS if on_bad_image == "skip" else 0

    def make(self, position: int, piece: int, num_pieces: int) -> Batch | BadImage:
        step, micro = divmod(position, self.plan.accumulation)
        epoch, step_in_epoch = self.plan.epoch_and_step(step)
        indices, repeats = self.plan.draws(epoch, step_in_epoch, micro, self.rank)
        draws = _piece([*zip(indices.tolist(), repeats.tolist(), strict=True)], piece, num_pieces)
        bad: list[BadSample] = []
        try:
            samples = [self._load(epoch, *draw, bad) for draw in draws]
        except BadImage as error:
            return error
        views = tuple(_stacked(images) for images in zip(*(images for _, images in samples), strict=True))
        labels = _labels(self.source, [index for index, _ in samples])
        return Batch(views, *labels, tuple(bad), epoch, step, micro, self.plan.block(micro, self.rank))

    def _load(self, epoch: int, index: int, repeat: int, bad: list[BadSample]) -> tuple[int, list[Image]]:
        """The views of the sample `index`, or of the first readable one of its replacements.

        A sample that is drawn again in its epoch (`repeat` > 0) is augmented by other random numbers.
        """
        place = (self.seed, epoch, index, repeat) if repeat else (self.seed, epoch, index)
        attempt = 0
        while True:
            try:
                with _named(self.source, index):
                    image = self.source.open(index)
                    return index, [view(image, stream(name, *place)) for name, view in self.views.items()]
            except BadImage as error:
                if attempt == self.attempts:
                    raise
                substitute = stream("substitute", self.seed, *place[1:3], attempt).randrange(len(self.source))
                bad.append(BadSample(index, self.source.name(index), error.reason, substitute))
                index, attempt = substitute, attempt + 1


def stream_names(views: Sequence[SomeView]) -> dict[str, SomeView]:
    """The name of the random stream of each view -> the view."""
    return {f"view {number}" if number else "sample": view for number, view in enumerate(views)}


class EvalBatches(BatchMaker):
    """Positions are the numbers of the batches."""

    def __init__(
        self,
        source: Source,
        transform: EvalTransform | CropTransform,
        batch_size: int,
        indices: Sequence[int],
        on_bad_image: str,
    ) -> None:
        self.source, self.transform, self.on_bad_image = source, transform, on_bad_image
        self.chunks = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]

    def __len__(self) -> int:
        return len(self.chunks)

    def make(self, position: int, piece: int, num_pieces: int) -> Batch | BadImage:
        indices: list[int] = []
        made: list[Image | list[Picture]] = []
        bad: list[BadSample] = []
        for index in _piece(self.chunks[position], piece, num_pieces):
            try:
                made.append(self._made(index))
                indices.append(index)
            except BadImage as error:
                if self.on_bad_image == "fail":
                    return error
                bad.append(BadSample(index, error.path, error.reason))
        labels = _labels(self.source, indices)
        if not made:
            return Batch((), *labels, tuple(bad))
        crops = [one if isinstance(one, list) else [one] for one in made]
        images = _stacked([crop for of_one_image in crops for crop in of_one_image])
        if isinstance(made[0], list):
            images = images.unflatten(0, (len(indices), -1))
        return Batch((images,), *labels, tuple(bad))

    def _made(self, index: int) -> Image | list[Picture]:
        with _named(self.source, index):
            return self.transform(self.source.load(index))


@contextmanager
def _named(source: Source, index: int) -> Iterator[None]:
    """An image that the network cannot take is a BadImage, which has a name."""
    try:
        yield
    except UnfitImage as error:
        raise BadImage(source.name(index), error.message, error.help) from None


def _stacked(images: Sequence[Image]) -> torch.Tensor:
    """(B, C, H, W) uint8; in a worker, in memory that it shares with the training process."""
    width, height = images[0].size
    pixels = torch.empty(len(images), len(images[0].getbands()), height, width, dtype=torch.uint8)
    if get_worker_info() is not None:
        pixels.share_memory_()
    rows = pixels.numpy()
    for row, image in zip(rows, images, strict=True):
        row[:] = channels_first(image)
    return pixels


def _labels(source: Source, indices: list[int]) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Targets as `Batch` describes them, and indices."""
    targets = None if source.targets is None else torch.from_numpy(source.targets[indices])
    return targets, torch.tensor(indices)


def _piece(whole: Sequence[Item], piece: int, num_pieces: int) -> Sequence[Item]:
    return whole[piece * len(whole) // num_pieces : (piece + 1) * len(whole) // num_pieces]
