"""What is done to one image before the network sees it in training: random crops and colors.

Geometry and order of random draws are timm's and torchvision's, so that a recipe means the same here as there. All
randomness comes from the generator that is handed in. Normalization, erasing and mixing happen later, on the device
and in batches (`mixing.py`).
"""

import math
import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance

from vitcli.data.auto_augment import build_policy
from vitcli.data.eval_transform import FILTERS, Filters, Resampling, image_mode, limit_aspect, resize_shorter
from vitcli.recipe.schema import Augmentation

TrainTransform = Callable[[Image.Image, random.Random], Image.Image]

PADDING = 4  # px


def build_train_transform(aug: Augmentation, *, in_channels: int = 3) -> TrainTransform:
    """PIL RGB image, generator -> PIL image of aug.image_resize squared, mode RGB or (in_channels=1) L.

    The crop of `train_crop`, flips, then auto_augment or else color_jitter; as in timm, a policy of 3-Augment keeps
    the color jitter.
    """
    crop = {"random_resized": random_resized_crop, "padded": random_padded_crop}[aug.train_crop]
    filters, mode = FILTERS[aug.interpolation], image_mode(in_channels)
    policy = _policy(aug, mode)
    jitter = _jitter_strengths(aug.color_jitter) if policy is None or "3a" in str(aug.auto_augment) else None

    def transform(image: Image.Image, rng: random.Random) -> Image.Image:
        image = image.convert(mode) if image.mode != mode else image
        image = crop(image, aug, filters, rng)
        if aug.hflip and rng.random() < aug.hflip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if aug.vflip and rng.random() < aug.vflip:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if policy is not None:
            image = policy(image, rng)
        return image if jitter is None else jitter_colors(image, jitter, rng)

    return transform


def to_uint8_tensor(image: Image.Image) -> torch.Tensor:
    """PIL image of mode RGB or L -> (C, H, W) uint8, contiguous."""
    pixels = np.array(image, dtype=np.uint8)  # (H, W, C) or (H, W)
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1).contiguous()


def random_resized_crop(image: Image.Image, aug: Augmentation, filters: Filters, rng: random.Random) -> Image.Image:
    """Any part of the image (see `random_crop_box`) resized to the square."""
    box = random_crop_box(*image.size, aug.scale, aug.ratio, rng)
    return image.crop(box).resize((aug.image_resize, aug.image_resize), _drawn(filters, rng))


def random_padded_crop(image: Image.Image, aug: Augmentation, filters: Filters, rng: random.Random) -> Image.Image:
    """A square anywhere in the image whose shorter side became the square's and which was padded by reflection.

    DeiT III's simple random crop (arXiv 2204.07118), and the usual one for CIFAR.
    """
    side = aug.image_resize
    image = resize_shorter(limit_aspect(image), side, _drawn(filters, rng))
    left, top = (rng.randint(0, length + 2 * PADDING - side) for length in image.size)
    return padded_crop(image, side, left, top)


def random_crop_box(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], rng: random.Random
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a crop whose area is a random share of the image, and whose aspect is random.

    Ten attempts; then the largest centered crop whose aspect is within `ratio`. (Szegedy et al. 2014; timm's rule.)
    """
    for _ in range(10):
        area = rng.uniform(*scale) * width * height
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = rng.randint(0, height - crop_height)
            left = rng.randint(0, width - crop_width)
            return left, top, left + crop_width, top + crop_height
    crop_width = min(width, round(height * max(ratio)))
    crop_height = min(height, round(width / min(ratio)))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def padded_crop(image: Image.Image, side: int, left: int, top: int, padding: int = PADDING) -> Image.Image:
    """side x side pixels at (left, top) of the image continued by its reflection for `padding` pixels on all sides."""
    pixels = np.asarray(image)

    def reflected(start: int, length: int) -> np.ndarray:
        last = length - 1
        return last - abs(last - abs(np.arange(start - padding, start - padding + side)))

    rows, columns = reflected(top, image.height), reflected(left, image.width)
    return Image.fromarray(pixels[rows][:, columns])


def jitter_colors(image: Image.Image, strengths: tuple[float, ...], rng: random.Random) -> Image.Image:
    """Brightness, contrast, saturation, each times a random factor of 1 ± strength, and hue turned; in random order.

    strengths: three numbers, or four with the hue's in turns of the color circle, at most 0.5. The formulae are those
    of torchvision's ColorJitter.
    """
    order = list(range(len(strengths)))
    rng.shuffle(order)
    for which in order:
        strength = strengths[which]
        if which == 3:
            image = turn_hue(image, rng.uniform(-strength, strength))
        elif strength:
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[which]
            image = enhance(image).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return image


def turn_hue(image: Image.Image, turns: float) -> Image.Image:
    """`image` with its hue turned by a share -0.5..0.5 of the color circle; gray images have no hue."""
    if image.mode == "L":
        return image
    hue, saturation, value = image.convert("HSV").split()
    shift = int(turns * 255) % 256
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _drawn(filters: Filters, rng: random.Random) -> Resampling:
    return rng.choice(filters) if filters[1:] else filters[0]


def _jitter_strengths(color_jitter: float | tuple[float, ...] | None) -> tuple[float, ...] | None:
    """One number stands for brightness, contrast and saturation; None: no jitter."""
    if not color_jitter:
        return None
    return (color_jitter,) * 3 if isinstance(color_jitter, int | float) else tuple(color_jitter)


def _policy(aug: Augmentation, mode: str) -> TrainTransform | None:
    if not aug.auto_augment:
        return None
    return build_policy(aug.auto_augment, mean=aug.mean, mode=mode, filters=FILTERS[aug.interpolation])
