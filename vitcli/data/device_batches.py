"""Training batches of images that are all on the device, where they are cropped and flipped (`cache: device`).

What is random is drawn as in `TrainBatches`, from the same streams. So padded crops, flips and everything that follows
are the same to the last bit as without the cache; a resized crop may differ by one level per pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitcli.data.augment_ops import draw_filter
from vitcli.data.batch import Batch
from vitcli.data.batch_makers import stream_names
from vitcli.data.cached import CachedImages
from vitcli.data.device_crops import SUPPORTED, Resampling, resized_boxes, windows
from vitcli.data.eval_transform import FILTERS
from vitcli.data.mixing import on_device
from vitcli.data.sampler import BatchPlan
from vitcli.data.source import Source
from vitcli.data.streams import stream
from vitcli.data.transforms import random_crop_box, random_window
from vitcli.data.views import View
from vitcli.errors import DataError, UsageError

_INSTEAD = "set cache: ram"


@dataclass(frozen=True)
class DeviceImages:
    """pixels: (N, C, H, W) uint8; targets: as `Source.targets`, or None. Both on the device."""

    pixels: Tensor
    targets: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px."""
        return self.pixels.shape[3], self.pixels.shape[2]


def on_the_device(source: Source, views: Sequence[View], device: torch.device) -> DeviceImages:
    """All images of `source`, decoded and moved.

    Raises:
        UsageError: a view does what is not done on a device.
        DataError: the images have several sizes, or another one than the views need; one cannot be read; or together
            they do not fit into memory.
    """
    _check_views(views)
    view = views[0]
    cached = CachedImages(source, view.format)
    if cached.bad:
        bad = next(iter(cached.bad.values()))
        raise DataError(f"cache: device, but {len(cached.bad)} images cannot be read: {bad.message}", help=_INSTEAD)
    sizes = np.unique(cached.shapes[:, :2], axis=0)
    if len(sizes) > 1:
        shown = " and ".join(f"{width} x {height}" for height, width in sizes[:2].tolist())
        raise DataError(f"cache: device needs images of one size, and there are several: {shown}", help=_INSTEAD)
    height, width = map(int, sizes[0])
    if view.aug.train_crop == "padded" and (height, width) != view.aug.height_and_width:
        wanted = " x ".join(map(str, view.aug.height_and_width))
        message = f"cache: device pads images of the input's size only: these are {height} x {width}, not {wanted}"
        raise DataError(message, help=f"set image_resize: [{height}, {width}], or cache: ram")
    pixels = torch.empty(len(source), view.format.channels, height, width, dtype=torch.uint8)
    for index in range(len(source)):
        image = cached.pixels(index).with_channels(view.format.channels)
        pixels[index] = torch.from_numpy(np.ascontiguousarray(image.values.transpose(2, 0, 1)))
    targets = None if source.targets is None else torch.from_numpy(source.targets).to(device)
    return DeviceImages(pixels.to(device), targets)


def _check_views(views: Sequence[View]) -> None:
    aug = views[0].aug
    if any(view.recolors for view in views):
        message = "cache: device crops, flips, erases and mixes, but does not change colors"
        raise UsageError(message, help=f"{_INSTEAD}, or remove auto_augment, color_jitter and the like")
    if aug.train_crop != "padded" and not SUPPORTED.issuperset(FILTERS[aug.interpolation]):
        raise UsageError(f"cache: device does not resize by interpolation: {aug.interpolation}", help=_INSTEAD)


class DeviceBatches:
    """The batches of `rank` from `start_step` up to `total_steps`, as those of `build_train_loader`."""

    def __init__(
        self,
        images: DeviceImages,
        views: Sequence[View],
        plan: BatchPlan,
        *,
        seed: int,
        rank: int,
        start_step: int,
        total_steps: int,
    ) -> None:
        self.images, self.views, self.plan, self.seed, self.rank = images, stream_names(views), plan, seed, rank
        self.positions = range(start_step * plan.accumulation, total_steps * plan.accumulation)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Batch]:
        return map(self._batch, self.positions)

    def _batch(self, position: int) -> Batch:
        step, micro = divmod(position, self.plan.accumulation)
        epoch, step_in_epoch = self.plan.epoch_and_step(step)
        indices, repeats = self.plan.draws(epoch, step_in_epoch, micro, self.rank)
        samples = torch.from_numpy(indices)
        chosen = on_device(samples, self.images.pixels.device)
        pixels = self.images.pixels[chosen]
        places = [
            (self.seed, epoch, index, repeat) if repeat else (self.seed, epoch, index)
            for index, repeat in zip(indices.tolist(), repeats.tolist(), strict=True)
        ]
        views = tuple(self._seen(pixels, view, name, places) for name, view in self.views.items())
        targets = None if self.images.targets is None else self.images.targets[chosen]
        return Batch(views, targets, samples, (), epoch, step, micro, self.plan.block(micro, self.rank))

    def _seen(self, pixels: Tensor, view: View, name: str, places: list[tuple[int, ...]]) -> Tensor:
        """(B, C, H, W) uint8 -> (B, C, h, w) uint8, cropped and flipped as drawn for each of `places`."""
        aug, filters = view.aug, FILTERS[view.aug.interpolation]
        rngs = [stream(name, *place) for place in places]
        if aug.train_crop == "padded":
            drawn = [(draw_filter(filters, rng), *random_window(*self.images.size, aug, rng)) for rng in rngs]
            rows, columns = (self._moved(np.stack(numbers)) for numbers in list(zip(*drawn, strict=True))[1:])
            images = windows(pixels, rows, columns)
        else:
            drawn = [
                (random_crop_box(*self.images.size, aug.scale, aug.ratio, rng), draw_filter(filters, rng))
                for rng in rngs
            ]
            boxes = self._moved(np.array([box for box, _ in drawn]))
            cubic = self._moved(np.array([filter == Resampling.BICUBIC for _, filter in drawn]))
            images = resized_boxes(pixels, boxes, cubic, aug.height_and_width)
        flips = self._moved(np.array([view.draw_flips(rng) for rng in rngs]))[:, :, None, None, None]  # (B, 2, 1, 1, 1)
        images = torch.where(flips[:, 0], images.flip(3), images)
        return torch.where(flips[:, 1], images.flip(2), images).contiguous()

    def _moved(self, numbers: np.ndarray) -> Tensor:
        return on_device(torch.from_numpy(numbers), self.images.pixels.device)
