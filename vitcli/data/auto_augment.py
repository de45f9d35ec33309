"""Augmentation policies as functions of an image; their names in a recipe are parsed by `recipe/augment_policy.py`."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from vitcli.data.augment_ops import TOP, Canvas, apply_op, trivial_augment
from vitcli.recipe.augment_policy import read_policy

Step = tuple[str, float, float]  # operation, probability, magnitude
Policy = Callable[[Image.Image, random.Random, Canvas], Image.Image]


def build_policy(
    text: str, *, mean: Sequence[float], mode: str, filters: tuple[Image.Resampling, ...]
) -> Callable[[Image.Image, random.Random], Image.Image]:
    """The policy `text` for images of `mode` ("RGB" or "L"); areas outside the image get the color `mean` (0..1).

    The function can be pickled. Raises ValueError for a text that `check_policy` refuses.
    """
    policy = parse_policy(text)
    fill = tuple(min(255, round(255 * value)) for value in mean)
    fill = (fill * 3 if len(fill) == 1 else fill) if mode == "RGB" else fill[0]
    canvas = Canvas(fill, filters, translate_ratio=0.3 if isinstance(policy, AugMix) else 0.45)
    return partial(policy, canvas=canvas)  # unlike a closure, it can be pickled for worker processes


def parse_policy(text: str) -> Policy:
    """The policy that `text` describes. Raises a ValueError that names the wrong part and what is allowed instead."""
    name, values = read_policy(text)
    get = values.get
    if name == "trivialaugwide":
        return trivial_augment
    if name in ("rand", "randaug"):
        ops = THREE_OPS if "t" in values else INCREASING_OPS if get("inc") else PLAIN_OPS
        noise = Noise(get("mstd", 0.5 if name == "randaug" else 0.0), get("mmax", TOP))
        return RandAugment(ops, get("n", 2), get("p", 0.5), get("m", TOP), noise)
    if name == "augmix":
        return AugMix(get("m", 3.0), get("w", 3), get("d"), get("a", 1.0), Noise(get("mstd", math.inf)))
    return AutoAugment(POLICIES[name], Noise(get("mstd", 0.5 if name.startswith("autoaug") else 0.0)))


@dataclass(frozen=True)
class Noise:
    """Normal noise on a magnitude, clipped to 0..top; an infinite `std` means a uniform draw from 0..magnitude."""

    std: float = 0.0
    top: float = TOP

    def draw(self, magnitude: float, rng: random.Random) -> float:
        if math.isinf(self.std):
            magnitude = rng.uniform(0, magnitude)
        elif self.std > 0:
            magnitude = rng.gauss(magnitude, self.std)
        return max(0.0, min(magnitude, self.top))


def apply(image: Image.Image, step: Step, noise: Noise, rng: random.Random, canvas: Canvas) -> Image.Image:
    """One step (operation, probability, magnitude) of a policy."""
    name, prob, magnitude = step
    if prob < 1 and rng.random() > prob:
        return image
    return apply_op(image, name, noise.draw(magnitude, rng), rng, canvas)


@dataclass(frozen=True)
class RandAugment:
    """`num_ops` of `names`, drawn with replacement, each applied with probability `prob`."""

    names: tuple[str, ...]
    num_ops: int
    prob: float
    magnitude: float
    noise: Noise

    def __call__(self, image: Image.Image, rng: random.Random, canvas: Canvas) -> Image.Image:
        for name in rng.choices(self.names, k=self.num_ops):
            image = apply(image, (name, self.prob, self.magnitude), self.noise, rng, canvas)
        return image


@dataclass(frozen=True)
class AutoAugment:
    """One of the sub-policies, drawn at random; all its steps in order."""

    sub_policies: tuple[tuple[Step, ...], ...]
    noise: Noise

    def __call__(self, image: Image.Image, rng: random.Random, canvas: Canvas) -> Image.Image:
        for step in rng.choice(self.sub_policies):
            image = apply(image, step, self.noise, rng, canvas)
        return image


@dataclass(frozen=True)
class AugMix:
    """`width` chains of `depth` operations (None: 1 to 3) at `magnitude`, mixed, then mixed with the image itself."""

    magnitude: float
    width: int
    depth: int | None
    alpha: float
    noise: Noise

    def __call__(self, image: Image.Image, rng: random.Random, canvas: Canvas) -> Image.Image:
        gammas = [rng.gammavariate(self.alpha, 1) for _ in range(self.width)]  # normalized: a Dirichlet draw
        share = rng.betavariate(self.alpha, self.alpha)
        mixed = np.zeros_like(image, dtype=np.float32)
        for gamma in gammas:
            chain = image
            for name in rng.choices(AUGMIX_OPS, k=self.depth or rng.randint(1, 3)):
                chain = apply(chain, (name, 1.0, self.magnitude), self.noise, rng, canvas)
            mixed += gamma / sum(gammas) * np.asarray(chain, dtype=np.float32)
        return Image.blend(image, Image.fromarray(mixed.clip(0, 255).astype(np.uint8)), share)


#: RandAugment's operations (Cubuk et al. 2019, with SolarizeAdd and without Cutout, as in the EfficientNet code)
PLAIN_OPS = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast",
    "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel",
)  # fmt: skip
_GROWING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
#: the same operations, in the variants whose effect grows with the magnitude
INCREASING_OPS = tuple(name + "Increasing" if name in _GROWING else name for name in PLAIN_OPS)

#: the three groups of 3-Augment as operations of RandAugment: the part `t3a`
THREE_OPS = ("SolarizeIncreasing", "Desaturate", "GaussianBlur")

#: AugMix's operations: those that its test set uses as corruptions are excluded, except the enhancers
AUGMIX_OPS = (
    "AutoContrast", "ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing", "Equalize",
    "Rotate", "PosterizeIncreasing", "SolarizeIncreasing", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel",
)  # fmt: skip

# AutoAugment's policy for ImageNet (arXiv 1805.09501, table 9): operation, probability, magnitude; two per line.
_ORIGINAL = """
Posterize    0.4 8   Rotate       0.6 9
Solarize     0.6 5   AutoContrast 0.6 5
Equalize     0.8 8   Equalize     0.6 3
Posterize    0.6 7   Posterize    0.6 6
Equalize     0.4 7   Solarize     0.2 4
Equalize     0.4 4   Rotate       0.8 8
Solarize     0.6 3   Equalize     0.6 7
Posterize    0.8 5   Equalize     1.0 2
Rotate       0.2 3   Solarize     0.6 8
Equalize     0.6 8   Posterize    0.4 6
Rotate       0.8 8   Color        0.4 0
Rotate       0.4 9   Equalize     0.6 2
Equalize     0.0 7   Equalize     0.8 8
Invert       0.6 4   Equalize     1.0 8
Color        0.6 4   Contrast     1.0 8
Rotate       0.8 8   Color        1.0 2
Color        0.8 8   Solarize     0.8 7
Sharpness    0.4 7   Invert       0.6 8
ShearX       0.6 5   Equalize     1.0 9
Color        0.4 0   Equalize     0.6 3
Equalize     0.4 7   Solarize     0.2 4
Solarize     0.6 5   AutoContrast 0.6 5
Invert       0.6 4   Equalize     1.0 8
Color        0.6 4   Contrast     1.0 8
Equalize     0.8 8   Equalize     0.6 3
"""


def _read(table: str, posterize: str) -> tuple[tuple[Step, Step], ...]:
    rows = [line.replace("Posterize", posterize).split() for line in table.strip().splitlines()]
    return tuple(((a, float(p), float(m)), (b, float(q), float(n))) for a, p, m, b, q, n in rows)


#: name -> sub-policies, each of which is a sequence of steps
POLICIES: dict[str, tuple[tuple[Step, ...], ...]] = {
    "original": _read(_ORIGINAL, "PosterizeOriginal"),
    "originalr": _read(_ORIGINAL, "PosterizeIncreasing"),
    "autoaug": _read(_ORIGINAL, "PosterizeOriginal"),
    "autoaugr": _read(_ORIGINAL, "PosterizeIncreasing"),
    "3a": ((("Solarize", 1.0, 5.0),), (("Desaturate", 1.0, 10.0),), (("GaussianBlurRand", 1.0, 10.0),)),
}
