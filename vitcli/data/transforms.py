"""The operations on one image that training views are made of: random crops, colors, blur.

Geometry and order of random draws are those of timm and torchvision, so that a recipe means the same here as there. All
randomness comes from the generator that is passed in. Normalization, erasing and mixing happen later, on the device
and in batches (`mixing.py`).
"""

import math
import random

import numpy as np
import torch
from PIL import Image, ImageEnhance

from vitcli.data.augment_ops import draw_filter
from vitcli.data.bands import Picture
from vitcli.data.eval_transform import Filters, limit_aspect, resize_to_cover
from vitcli.data.jpeg import Jpeg
from vitcli.data.pixels import Pixels
from vitcli.recipe.schema import Augmentation

PADDING = 4  # px


def to_uint8_tensor(image: Picture | Pixels) -> torch.Tensor:
    """An image of 8 bits -> (C, H, W) uint8, contiguous."""
    return torch.from_numpy(np.array(channels_first(image), order="C"))


def channels_first(image: Picture | Pixels) -> np.ndarray:
    """An image of 8 bits -> (C, H, W) uint8, of any strides."""
    pixels = image.values if isinstance(image, Pixels) else np.asarray(image, dtype=np.uint8)  # (H, W, C) or (H, W)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def random_resized_crop(image: Pixels | Jpeg, aug: Augmentation, filters: Filters, rng: random.Random) -> Pixels:
    """Any part of the image (see `random_crop_box`) resized to the size of the input."""
    box, (height, width) = random_crop_box(*image.size, aug.scale, aug.ratio, rng), aug.height_and_width
    if isinstance(image, Jpeg):
        image, box = image.reduced(box, (width, height)) if aug.decode == "scaled" else (image.pixels, box)
    return image.crop(box).resize((width, height), draw_filter(filters, rng))


def random_padded_crop(image: Pixels | Jpeg, aug: Augmentation, filters: Filters, rng: random.Random) -> Pixels:
    """The input's size at any place of the image, after it was resized to cover that and was padded.

    The padding is a reflection. This is DeiT III's simple random crop (arXiv 2204.07118), and the usual one for CIFAR.
    """
    image = image.pixels if isinstance(image, Jpeg) else image
    image = resize_to_cover(limit_aspect(image), aug.height_and_width, draw_filter(filters, rng))
    rows, columns = random_window(*image.size, aug, rng)
    return Pixels(image.values[rows][:, columns])


def random_window(width: int, height: int, aug: Augmentation, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """(h,) and (w,): the numbers of the rows and columns of a random part of a padded image; (h, w) is the input's."""

    def reflected(length: int, side: int) -> np.ndarray:
        """A random stretch; beyond the edges the numbers are reflected."""
        start, last = rng.randint(0, length + 2 * PADDING - side) - PADDING, length - 1
        return last - abs(last - abs(np.arange(start, start + side)))

    input_height, input_width = aug.height_and_width
    columns = reflected(width, input_width)
    return reflected(height, input_height), columns


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


def jitter_colors(image: Image.Image, strengths: tuple[float, ...], rng: random.Random) -> Image.Image:
    """Brightness, contrast and saturation times a random factor of 1 ± strength, and hue shifted; in random order.

    strengths: three numbers, or four with that of the hue, as a share of the color circle of at most 0.5. The formulas
    are those of torchvision's ColorJitter.
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
    """`image` with its hue shifted by a share -0.5..0.5 of the color circle; gray images have no hue."""
    if image.mode == "L":
        return image
    hue, saturation, value = image.convert("HSV").split()
    shift = int(turns * 255) % 256
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
