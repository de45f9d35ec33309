"""Transforms of a whole batch on the device: normalize, erase, mix. All draws are functions of (seed, step, block).

Decisions are drawn on the CPU as plain numbers. The device sees tensors of one shape only, and nothing waits for it.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vitcli.data.batch import Batch
from vitcli.data.streams import stream, stream_seed
from vitcli.errors import UsageError
from vitcli.recipe.schema import Augmentation

Box = tuple[int, int, int, int]  # top, left, bottom, right
NOTHING: Box = (0, 0, 0, 0)


class Normalizer:
    """(B, C, H, W) uint8 -> float32, (x / 255 - mean) / std for each channel.

    Args:
        mean, std: one number for all channels, or one for each of `in_channels`.

    Raises:
        UsageError: another number of them.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], in_channels: int = 3) -> None:
        if not {len(mean), len(std)} <= {1, in_channels}:
            raise UsageError(
                f"mean has {len(mean)} and std {len(std)} numbers, but the images have {in_channels} channels",
                help=f"give {in_channels} of each, or one for all channels",
            )
        self.mean = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1) * 255
        self.std = torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1) * 255

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if self.mean.device != images.device:
            self.mean, self.std = self.mean.to(images.device), self.std.to(images.device)
        return images.to(torch.float32).sub_(self.mean).div_(self.std)


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed with its own reverse: `lam` is the share kept of each image, `box` what cutmix replaces."""

    lam: float
    box: Box | None = None


class BatchPreparer:
    """A training batch as the loader gives it -> what the model and the loss take.

    Each view is normalized, and erased by its own random numbers. While mixing is on (one view only), targets become
    (B, num_classes) float32, with rows that sum to 1 if each image has one class. All draws are functions of the seed
    and of the step and block of the batch: each rank has its own, and they stay the same if the global batch is spread
    differently.
    """

    def __init__(self, aug: Augmentation, num_classes: int, *, in_channels: int = 3) -> None:
        self.aug, self.num_classes = aug, num_classes
        self.normalize = Normalizer(aug.mean, aug.std, in_channels)

    def mixes(self, epoch: int) -> bool:
        """Whether targets are soft in `epoch`."""
        off = 0 < self.aug.mixup_off_epoch <= epoch
        return (self.aug.mixup > 0 or self.aug.cutmix > 0) and not off

    def __call__(self, batch: Batch, seed: int) -> Batch:
        place = seed, batch.step, batch.block
        views = tuple(self._prepared(view, number, place) for number, view in enumerate(batch.views))
        if not self.mixes(batch.epoch):
            return replace(batch, views=views)
        assert len(views) == 1
        assert batch.targets is not None
        mix = draw_mix(self.aug, views[0].shape, stream("mix", *place))
        targets = mix_targets(batch.targets, self.num_classes, mix.lam)
        return replace(batch, views=(mix_images(views[0], mix),), targets=targets)

    def _prepared(self, images: torch.Tensor, view: int, place: tuple[int, ...]) -> torch.Tensor:
        """(B, C, H, W) uint8 -> float32, normalized and erased."""
        images = self.normalize(images)
        if self.aug.re_prob == 0:
            return images
        place = (*place, view) if view else place
        boxes = draw_erasing(self.aug, images.shape, stream("erase", *place))
        return erase(images, boxes, self.aug, stream_seed("erase noise", *place))


def draw_erasing(aug: Augmentation, shape: torch.Size, rng: random.Random) -> list[Box]:
    """One box per image; empty for the share 1 - re_prob that is not erased. (Zhong et al. 2017; timm's rule.)"""
    batch, _, height, width = shape
    return [_draw_erased_box(aug, height, width, rng) if rng.random() < aug.re_prob else NOTHING for _ in range(batch)]


def _draw_erased_box(aug: Augmentation, height: int, width: int, rng: random.Random) -> Box:
    for _ in range(aug.re_max_attempts):
        area = rng.uniform(*aug.re_scale) * height * width
        aspect = math.exp(rng.uniform(math.log(aug.re_ratio[0]), math.log(aug.re_ratio[1])))
        box_height, box_width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if box_height < height and box_width < width:
            top, left = rng.randint(0, height - box_height), rng.randint(0, width - box_width)
            return top, left, top + box_height, left + box_width
    return NOTHING


def erase(images: torch.Tensor, boxes: list[Box], aug: Augmentation, noise_seed: int) -> torch.Tensor:
    """(B, C, H, W) float32 with the box of each image filled: re_value, one random color, or noise per pixel."""
    batch, channels, height, width = images.shape
    edges = on_device(torch.tensor(boxes, dtype=torch.int32), images.device).view(batch, 4, 1, 1, 1)
    top, left, bottom, right = edges.unbind(1)  # (B, 1, 1, 1) each
    y = torch.arange(height, device=images.device, dtype=torch.int32).view(1, 1, -1, 1)
    x = torch.arange(width, device=images.device, dtype=torch.int32).view(1, 1, 1, -1)
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)  # (B, 1, H, W)
    if aug.re_mode == "const":
        return images.masked_fill(inside, aug.re_value)
    generator = torch.Generator(images.device).manual_seed(noise_seed)
    size = images.shape if aug.re_mode == "pixel" else (batch, channels, 1, 1)
    return torch.where(inside, torch.randn(size, generator=generator, device=images.device), images)


def draw_mix(aug: Augmentation, shape: torch.Size, rng: random.Random) -> Mix:
    """Mixup (Zhang et al. 2017) or cutmix (Yun et al. 2019) for one batch; lam ~ Beta(alpha, alpha).

    The cutmix box covers 1 - lam of the image around a uniformly drawn center. If the border cuts it off, lam becomes
    the share that is really kept.
    """
    if rng.random() >= aug.cutmix_prob:
        return Mix(1.0)
    cut = aug.cutmix > 0 and (aug.mixup == 0 or rng.random() < aug.mixup_switch_prob)
    alpha = aug.cutmix if cut else aug.mixup
    lam = rng.betavariate(alpha, alpha)
    if not cut:
        return Mix(lam)
    height, width = shape[-2:]
    box = cut_box(height, width, lam, center=(rng.randrange(height), rng.randrange(width)))
    top, left, bottom, right = box
    return Mix(1 - (bottom - top) * (right - left) / (height * width), box)


def cut_box(height: int, width: int, lam: float, center: tuple[int, int]) -> Box:
    """The box around `center` (y, x) whose sides are sqrt(1 - lam) times those of the image, cut off at the border."""
    box_height, box_width = int(height * math.sqrt(1 - lam)), int(width * math.sqrt(1 - lam))
    y, x = center
    top, bottom = max(0, y - box_height // 2), min(height, y + (box_height + 1) // 2)
    left, right = max(0, x - box_width // 2), min(width, x + (box_width + 1) // 2)
    return top, left, bottom, right


def mix_images(images: torch.Tensor, mix: Mix) -> torch.Tensor:
    """(B, C, H, W): each image mixed with its partner from the other end of the batch; B may be odd."""
    if mix.lam == 1.0:
        return images
    partners = images.flip(0)
    if mix.box is None:
        return images.mul(mix.lam).add_(partners.mul_(1 - mix.lam))
    top, left, bottom, right = mix.box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return mixed


def mix_targets(labels: torch.Tensor, num_classes: int, lam: float) -> torch.Tensor:
    """`Batch.targets` -> (B, num_classes) float32: lam for the image's own classes, the rest for its partner's."""
    if labels.ndim == 2:
        targets = labels.float()
    else:
        targets = torch.zeros(len(labels), num_classes, device=labels.device).scatter_(1, labels[:, None], 1.0)
    return targets.mul(lam).add_(targets.flip(0), alpha=1 - lam)


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small CPU tensor on `device`, through pinned memory so that nothing waits."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
