"""The single operations that augmentation policies are made of: `op(image, magnitude, rng, canvas) -> image`.

`magnitude` is 0 to 10 (more only where a policy allows it); its meaning depends on the operation. RandAugment has two
sets of operations: in names that end in "Increasing" the effect grows with the magnitude; the others keep the scale of
the AutoAugment code, where 10 is the weakest effect of some. (Cubuk et al., arXiv 1805.09501 and 1909.13719; ranges and
order of random draws as in timm.)
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

TOP = 10.0  # the magnitude that means the full range of an operation


@dataclass(frozen=True)
class Canvas:
    """Settings of geometric operations: the color outside the image, the filters to draw from, and the shift of a
    translation of magnitude 10 as a share of the side."""

    fill: int | tuple[int, ...]
    filters: tuple[Image.Resampling, ...]
    translate_ratio: float = 0.45


Op = Callable[[Image.Image, float, random.Random, Canvas], Image.Image]


def auto_contrast(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """Stretches each channel to the full range; the magnitude has no effect."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """Flattens the histogram of each channel; the magnitude has no effect."""
    return ImageOps.equalize(image)


def invert(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """The negative; the magnitude has no effect."""
    return ImageOps.invert(image)


def rotate(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """By up to 30 degrees, clockwise or counterclockwise."""
    degrees = either_sign(magnitude / TOP * 30, rng)
    return image.rotate(degrees, resample=draw_filter(rng, canvas), fillcolor=canvas.fill)


def shear_x(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """By up to 0.3 pixels per row, left or right."""
    return affine(image, (1, either_sign(magnitude / TOP * 0.3, rng), 0, 0, 1, 0), rng, canvas)


def shear_y(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """By up to 0.3 pixels per column up or down."""
    return affine(image, (1, 0, 0, either_sign(magnitude / TOP * 0.3, rng), 1, 0), rng, canvas)


def translate_x(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """By up to canvas.translate_ratio of the width, left or right."""
    pixels = either_sign(magnitude / TOP * canvas.translate_ratio, rng) * image.width
    return affine(image, (1, 0, pixels, 0, 1, 0), rng, canvas)


def translate_y(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """By up to canvas.translate_ratio of the height, up or down."""
    pixels = either_sign(magnitude / TOP * canvas.translate_ratio, rng) * image.height
    return affine(image, (1, 0, 0, 0, 1, pixels), rng, canvas)


def posterize(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """Keeps 0 (black) to 4 bits, more with the magnitude."""
    return keep_bits(image, int(magnitude / TOP * 4))


def posterize_increasing(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """Keeps 4 to 0 bits, fewer with the magnitude."""
    return keep_bits(image, 4 - int(magnitude / TOP * 4))


def posterize_original(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """Keeps 4 to 8 bits, more with the magnitude, as the AutoAugment paper describes it."""
    return keep_bits(image, 4 + int(magnitude / TOP * 4))


def solarize(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """Inverts pixels above a threshold of 0 to 256, fewer with the magnitude."""
    return ImageOps.solarize(image, min(256, int(magnitude / TOP * 256)))


def solarize_increasing(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """Inverts pixels above a threshold of 256 to 0, more with the magnitude."""
    return ImageOps.solarize(image, 256 - min(256, int(magnitude / TOP * 256)))


def solarize_add(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """Adds up to 110 to pixels below 128."""
    added = min(128, int(magnitude / TOP * 110))
    table = [min(255, level + added) if level < 128 else level for level in range(256)]
    return image.point(table * len(image.getbands()))


def desaturate(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """Removes half to all of the color."""
    share = max(0.5, min(1.0, 0.5 + 0.5 * magnitude / TOP))
    return ImageEnhance.Color(image).enhance(min(1.0, max(0.0, 1.0 - share)))


def gaussian_blur(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """With a radius of 0.1 to 2 pixels."""
    return image.filter(ImageFilter.GaussianBlur(max(0.1, min(2.0, 0.1 + 1.9 * (magnitude / TOP)))))


def gaussian_blur_random(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """With a random radius between 0.1 and at most 2 pixels."""
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0 * max(0.0, min(1.0, magnitude / TOP)))))


def enhancer(kind: type, *, increasing: bool) -> Op:
    """One of Pillow's enhancers, which blend the image with gray, black or a blur: factor 0 gives that, 1 the image.

    The factor is 0.1 to 1.9 with the magnitude; increasing: 1 ± up to 0.9, with a random sign.
    """

    def enhance(image: Image.Image, magnitude: float, rng: random.Random, canvas: Canvas) -> Image.Image:
        if increasing:
            factor = max(0.1, 1.0 + either_sign(magnitude / TOP * 0.9, rng))
        else:
            factor = magnitude / TOP * 1.8 + 0.1
        return kind(image).enhance(factor)

    return enhance


OPS: dict[str, Op] = {
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Rotate": rotate,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateXRel": translate_x,
    "TranslateYRel": translate_y,
    "Posterize": posterize,
    "PosterizeIncreasing": posterize_increasing,
    "PosterizeOriginal": posterize_original,
    "Solarize": solarize,
    "SolarizeIncreasing": solarize_increasing,
    "SolarizeAdd": solarize_add,
    "Color": enhancer(ImageEnhance.Color, increasing=False),
    "ColorIncreasing": enhancer(ImageEnhance.Color, increasing=True),
    "Contrast": enhancer(ImageEnhance.Contrast, increasing=False),
    "ContrastIncreasing": enhancer(ImageEnhance.Contrast, increasing=True),
    "Brightness": enhancer(ImageEnhance.Brightness, increasing=False),
    "BrightnessIncreasing": enhancer(ImageEnhance.Brightness, increasing=True),
    "Sharpness": enhancer(ImageEnhance.Sharpness, increasing=False),
    "SharpnessIncreasing": enhancer(ImageEnhance.Sharpness, increasing=True),
    "Desaturate": desaturate,
    "GaussianBlur": gaussian_blur,
    "GaussianBlurRand": gaussian_blur_random,
}


def trivial_augment(image: Image.Image, rng: random.Random, canvas: Canvas) -> Image.Image:
    """One of 14 operations at one of 31 strengths, over wide ranges. (Müller & Hutter 2021, arXiv 2103.10158.)"""
    name = rng.choice(WIDE_OPS)
    return wide_op(image, name, rng.randrange(31) / 30, rng, canvas)


WIDE_OPS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)


def wide_op(image: Image.Image, name: str, strength: float, rng: random.Random, canvas: Canvas) -> Image.Image:
    """One operation of TrivialAugment at a strength of 0..1; translations reach 32 pixels, rotations 135 degrees."""
    match name:
        case "ShearX":
            return affine(image, (1, either_sign(0.99 * strength, rng), 0, 0, 1, 0), rng, canvas)
        case "ShearY":
            return affine(image, (1, 0, 0, either_sign(0.99 * strength, rng), 1, 0), rng, canvas)
        case "TranslateX":
            return affine(image, (1, 0, int(either_sign(32 * strength, rng)), 0, 1, 0), rng, canvas)
        case "TranslateY":
            return affine(image, (1, 0, 0, 0, 1, int(either_sign(32 * strength, rng))), rng, canvas)
        case "Rotate":
            degrees = either_sign(135 * strength, rng)
            return image.rotate(degrees, resample=draw_filter(rng, canvas), fillcolor=canvas.fill)
        case "Brightness" | "Color" | "Contrast" | "Sharpness":
            return getattr(ImageEnhance, name)(image).enhance(1 + either_sign(0.99 * strength, rng))
        case "Posterize":
            return keep_bits(image, 8 - round(6 * strength))
        case "Solarize":
            return ImageOps.solarize(image, math.ceil(255 - 255 * strength))
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
    return image


def affine(image: Image.Image, matrix: tuple[float, ...], rng: random.Random, canvas: Canvas) -> Image.Image:
    """(a, b, c, d, e, f): the output at (x, y) is the input at (ax + by + c, dx + ey + f)."""
    transform = Image.Transform.AFFINE
    return image.transform(image.size, transform, matrix, resample=draw_filter(rng, canvas), fillcolor=canvas.fill)


def keep_bits(image: Image.Image, bits: int) -> Image.Image:
    """Only the `bits` highest bits of each channel; 0 makes the image black, which Pillow's own posterize refuses."""
    mask = 0xFF00 >> max(0, min(8, bits)) & 0xFF
    return image.point([level & mask for level in range(256)] * len(image.getbands()))


def either_sign(value: float, rng: random.Random) -> float:
    return -value if rng.random() > 0.5 else value


def draw_filter(rng: random.Random, canvas: Canvas) -> Image.Resampling:
    return rng.choice(canvas.filters) if canvas.filters[1:] else canvas.filters[0]
