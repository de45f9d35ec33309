"""Training views: independently augmented versions of one image, each made in the order of the BYOL paper.

Crop, flips, color jitter with a probability, grayscale, blur, solarization: appendix B and table 6 of Grill et al. 2020
(arXiv 2006.07733), and the same order as in lightly. A policy (`auto_augment`) comes after the flips, as in timm. The
keys that differ between the views of BYOL take one number for all views, or a list with one for each.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from PIL import Image, ImageFilter, ImageOps

from vitcli.data.auto_augment import build_policy
from vitcli.data.bands import Bands, Picture
from vitcli.data.eval_transform import FILTERS, AnyPicture
from vitcli.data.jpeg import Jpeg
from vitcli.data.pixel_format import PixelFormat
from vitcli.data.pixels import Pixels
from vitcli.data.transforms import jitter_colors, random_padded_crop, random_resized_crop
from vitcli.errors import UsageError
from vitcli.recipe.schema import Augmentation

OfPillow = TypeVar("OfPillow", Image.Image, Bands)
#: an image and the generator of all that is random -> the augmented image
TrainTransform = Callable[[Picture | Pixels | Jpeg, random.Random], Picture | Pixels]


@dataclass(frozen=True)
class View:
    """Any image, generator -> one of the size aug.image_resize, in the format of the network.

    policy: auto_augment; None: none. jitter: strengths, see `jitter_colors`; None: no jitter.
    """

    aug: Augmentation
    format: PixelFormat
    policy: Callable[[Image.Image, random.Random], Image.Image] | None
    jitter: tuple[float, ...] | None
    jitter_prob: float
    grayscale_prob: float
    blur_prob: float
    solarize_prob: float

    def __call__(self, image: Picture | Pixels | Jpeg, rng: random.Random) -> Picture | Pixels:
        aug = self.aug
        crop = random_padded_crop if aug.train_crop == "padded" else random_resized_crop
        image = crop(self.format.ready_to_crop(image), aug, FILTERS[aug.interpolation], rng)
        image = image.with_channels(self.format.channels)
        flips = self.draw_flips(rng)
        if self.recolors:  # by Pillow, which also flips what it has
            return self._recolored(_flipped(image.picture(), flips), rng)
        return _flipped(image, flips)

    def draw_flips(self, rng: random.Random) -> tuple[bool, bool]:
        """Whether left and right, and top and bottom, are exchanged."""
        hflip = bool(self.aug.hflip) and rng.random() < self.aug.hflip
        return hflip, bool(self.aug.vflip) and rng.random() < self.aug.vflip

    @cached_property
    def recolors(self) -> bool:
        """Whether anything may happen to an image after the flips."""
        probs = self.grayscale_prob, self.blur_prob, self.solarize_prob
        return self.policy is not None or (self.jitter is not None and self.jitter_prob > 0) or any(probs)

    def _recolored(self, image: Picture, rng: random.Random) -> Picture:
        if isinstance(image, Bands):  # no operation on colors, as the recipe's check has seen to
            return self._blurred(image, rng)
        if self.policy is not None:
            image = self.policy(image, rng)
        if self.jitter is not None and _happens(self.jitter_prob, rng):
            image = jitter_colors(image, self.jitter, rng)
        if _happens(self.grayscale_prob, rng):
            image = image.convert("L").convert(image.mode)  # the luma of ITU-R 601
        image = self._blurred(image, rng)
        if _happens(self.solarize_prob, rng):
            image = ImageOps.solarize(image, self.aug.solarize_threshold)
        return image

    def _blurred(self, image: OfPillow, rng: random.Random) -> OfPillow:
        if not _happens(self.blur_prob, rng):
            return image
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(*self.aug.blur_sigma)))


def _flipped(image: AnyPicture, flips: tuple[bool, bool]) -> AnyPicture:
    if flips[0]:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if flips[1] else image


def build_views(aug: Augmentation, num_views: int, in_channels: int = 3) -> list[View]:
    """One transform for each view of a sample.

    As in timm, a policy turns the color jitter off, except 3-Augment. Without blur, grayscale and solarization, and
    with jitter always on, the draws are those of a plain classification pipeline.

    Raises:
        UsageError: a key has a list whose length is not `num_views`.
    """
    format = PixelFormat(in_channels, aug.pixel_range)
    policy = None
    if aug.auto_augment:
        mode = "RGB" if in_channels == 3 else "L"
        policy = build_policy(aug.auto_augment, mean=aug.mean, mode=mode, filters=FILTERS[aug.interpolation])
    jitter = aug.color_jitter or None
    if isinstance(jitter, int | float):  # of brightness, contrast and saturation
        jitter = (jitter,) * 3
    if policy is not None and "3a" not in str(aug.auto_augment):
        jitter = None
    names = ("color_jitter_prob", "grayscale_prob", "blur_prob", "solarize_prob")
    probs = zip(*(_per_view(name, getattr(aug, name), num_views) for name in names), strict=True)
    return [View(aug, format, policy, jitter, *of_view) for of_view in probs]


def _per_view(name: str, value: float | tuple[float, ...], num_views: int) -> tuple[float, ...]:
    if not isinstance(value, tuple):
        return (value,) * num_views
    if len(value) != num_views:
        raise UsageError(
            f"{name} has {len(value)} values, but the task makes {num_views} view{'s' * (num_views > 1)} of an image",
            help=f"give one number, or a list of {num_views}",
        )
    return value


def _happens(prob: float, rng: random.Random) -> bool:
    """Nothing is drawn where there is no choice."""
    return prob > 0 and (prob >= 1 or rng.random() < prob)
