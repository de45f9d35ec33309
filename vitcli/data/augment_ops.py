"""The single operations that augmentation policies are made of.

RandAugment has two sets of operations: in names that end in "Increasing" the effect grows with the magnitude; the
others keep the scale of the AutoAugment code, where 10 is the weakest effect of some. (Cubuk et al., arXiv 1805.09501
and 1909.13719; ranges and order of random draws as in timm.)
"""

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vitcli.data.slide import slide

TOP = 10.0  # the magnitude that means the full range of an operation

#: TrivialAugment's operations
WIDE_OPS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip


@dataclass(frozen=True)
class Canvas:
    """Settings of geometric operations: the color outside the image, the filters to draw from, and the shift of a
    translation of magnitude 10 as a share of the side."""

    fill: int | tuple[int, ...]
    filters: tuple[Image.Resampling, ...]
    translate_ratio: float = 0.45


def apply_op(image: Image.Image, name: str, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """One operation at a magnitude of 0 to 10 (more only where a policy allows it)."""
    share = magnitude / TOP
    match name:
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Invert":
            return ImageOps.invert(image)
        case "Rotate":  # up to 30 degrees
            return warp(image, name, either_sign(share * 30, rng), rng, canvas)
        case "ShearX" | "ShearY":  # up to 0.3 pixels per row or column
            return warp(image, name, either_sign(share * 0.3, rng), rng, canvas)
        case "TranslateXRel":
            pixels = either_sign(share * canvas.translate_ratio, rng) * image.width
            return warp(image, "TranslateX", pixels, rng, canvas)
        case "TranslateYRel":
            pixels = either_sign(share * canvas.translate_ratio, rng) * image.height
            return warp(image, "TranslateY", pixels, rng, canvas)
        case "Posterize":  # 0 (black) to 4 bits
            return keep_bits(image, int(share * 4))
        case "PosterizeIncreasing":  # 4 to 0 bits
            return keep_bits(image, 4 - int(share * 4))
        case "PosterizeOriginal":  # 4 to 8 bits, as the AutoAugment paper describes it
            return keep_bits(image, 4 + int(share * 4))
        case "Solarize":  # above a threshold of 0 to 256
            return ImageOps.solarize(image, min(256, int(share * 256)))
        case "SolarizeIncreasing":  # above a threshold of 256 to 0
            return ImageOps.solarize(image, 256 - min(256, int(share * 256)))
        case "SolarizeAdd":  # up to 110 added to pixels below 128
            added = min(128, int(share * 110))
            table = [min(255, level + added) if level < 128 else level for level in range(256)]
            return image.point(table * len(image.getbands()))
        case "Color" | "Contrast" | "Brightness" | "Sharpness":  # by a factor of 0.1 to 1.9
            return enhance(image, name, share * 1.8 + 0.1)
        case "ColorIncreasing" | "ContrastIncreasing" | "BrightnessIncreasing" | "SharpnessIncreasing":  # 1 ± up to 0.9
            return enhance(image, name.removesuffix("Increasing"), max(0.1, 1.0 + either_sign(share * 0.9, rng)))
        case "Desaturate":  # half to all of the color removed
            return enhance(image, "Color", 1.0 - max(0.5, min(1.0, 0.5 + 0.5 * magnitude / TOP)))
        case "GaussianBlur":  # radius of 0.1 to 2 pixels
            return image.filter(ImageFilter.GaussianBlur(max(0.1, min(2.0, 0.1 + 1.9 * share))))
        case "GaussianBlurRand":  # random radius between 0.1 and at most 2 pixels
            return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0 * max(0.0, min(1.0, share)))))
    raise ValueError(f"there is no operation {name}")


def trivial_augment(image: Image.Image, rng: random.Random, canvas: Canvas) -> Image.Image:
    """One of 14 operations at one of 31 strengths, over wide ranges. (Müller & Hutter 2021, arXiv 2103.10158.)"""
    name = rng.choice(WIDE_OPS)
    return wide_op(image, name, rng.randrange(31) / 30, rng, canvas)


def wide_op(image: Image.Image, name: str, strength: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """One operation of TrivialAugment at a strength of 0..1; translations reach 32 pixels, rotations 135 degrees."""
    match name:
        case "ShearX" | "ShearY":
            return warp(image, name, either_sign(0.99 * strength, rng), rng, canvas)
        case "TranslateX" | "TranslateY":
            return warp(image, name, int(either_sign(32 * strength, rng)), rng, canvas)
        case "Rotate":
            return warp(image, name, either_sign(135 * strength, rng), rng, canvas)
        case "Brightness" | "Color" | "Contrast" | "Sharpness":
            return enhance(image, name, 1 + either_sign(0.99 * strength, rng))
        case "Posterize":
            return keep_bits(image, 8 - round(6 * strength))
        case "Solarize":
            return ImageOps.solarize(image, math.ceil(255 - 255 * strength))
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
    return image


def warp(image: Image.Image, name: str, amount: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """The image rotated by `amount` in degrees, sheared in pixels per row or column, or moved in pixels."""
    resample = draw_filter(canvas.filters, rng)
    if name == "Rotate":
        return image.rotate(amount, resample, fillcolor=canvas.fill)
    slope, offset = (amount, 0.0) if name.startswith("Shear") else (0.0, amount)
    rows = name.endswith("X")
    if resample == Image.Resampling.BICUBIC:
        moved = slide(image, slope, offset, canvas.fill, rows=rows)
        if moved is not None:
            return moved
    # the output at (x, y) is the input at (ax + by + c, dx + ey + f)
    matrix = (1, slope, offset, 0, 1, 0) if rows else (1, 0, 0, slope, 1, offset)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=canvas.fill)


def enhance(image: Image.Image, name: str, factor: float) -> Image.Image:
    """One of Pillow's enhancers: factor 0 gives gray, black or a blur, 1 the image itself."""
    return getattr(ImageEnhance, name)(image).enhance(factor)


def keep_bits(image: Image.Image, bits: int) -> Image.Image:
    """Only the `bits` highest bits of each channel; 0 makes the image black, which Pillow's own posterize refuses."""
    mask = 0xFF00 >> max(0, min(8, bits)) & 0xFF
    return image.point([level & mask for level in range(256)] * len(image.getbands()))


def either_sign(value: float, rng: random.Random) -> float:
    return -value if rng.random() > 0.5 else value


def draw_filter(filters: tuple[Image.Resampling, ...], rng: random.Random) -> Image.Resampling:
    """One of the filters; nothing is drawn where there is no choice."""
    return rng.choice(filters) if filters[1:] else filters[0]
