"""Augmentation policies and the one-line language that recipes name them by: `rand-m9-mstd0.5-inc1`.

The language is timm's: the policy, then parts of a letter code and a value, joined by dashes.

    rand        RandAugment: n operations per image (default 2), each applied with probability p (0.5) at magnitude m
                (10) plus normal noise of mstd (0; above 100: uniform in 0..m), clipped to 0..mmax (10); inc1: the set
                whose effects grow with the magnitude; t3a, t3aw, tweights, w0: other sets, or weights
    randaug     the same in MindCV's spelling, with mstd 0.5 unless given
    original    AutoAugment's ImageNet policy; originalr: its posterize removes more bits with the magnitude
    autoaug     the same two in MindCV's spelling (autoaug, autoaugr), with mstd 0.5 unless given
    v0, v0r     the policy of the TPU EfficientNet code                          [all these take mstd]
    3a          3-Augment: solarize, gray or blur (Touvron et al. 2022, arXiv 2204.07118)
    augmix      AugMix: w chains (3) of d operations (default: 1 to 3) at magnitude m (3), mixed by Dirichlet(a)
                weights (a 1) and then with the image (Hendrycks et al. 2020, arXiv 1912.02781); mstd: default uniform
    trivialaugwide   TrivialAugment; takes nothing

This module does not import torch, so that a recipe is checked quickly.
"""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vitcli.data.augment_ops import OPS, TOP, Canvas, trivial_augment
from vitcli.data.policies import AUGMIX_OPS, INCREASING_OPS, OP_SETS, PLAIN_OPS, POLICIES, WEIGHTS, Step

Policy = Callable[[Image.Image, random.Random, Canvas], Image.Image]


def build_policy(
    text: str, *, mean: Sequence[float], mode: str, filters: tuple[Image.Resampling, ...]
) -> Callable[[Image.Image, random.Random], Image.Image]:
    """The policy `text` for images of `mode` ("RGB" or "L"), which are filled up with the colour `mean` (0..1).

    Raises ValueError for a text that `check_policy` objects to.
    """
    policy = parse_policy(text)
    fill = tuple(min(255, round(255 * value)) for value in mean)
    fill = (fill * 3 if len(fill) == 1 else fill) if mode == "RGB" else fill[0]
    canvas = Canvas(fill, filters, translate_ratio=0.3 if isinstance(policy, AugMix) else 0.45)
    return lambda image, rng: policy(image, rng, canvas)


def check_policy(text: str) -> str | None:
    """What is wrong with the policy `text`, in words; None if nothing is."""
    try:
        parse_policy(text)
    except ValueError as error:
        return str(error)
    return None


def parse_policy(text: str) -> Policy:
    """The policy `text` stands for. Raises ValueError that names the part and what is allowed in its place."""
    name, *parts = text.split("-")
    if name == "trivialaugwide":
        _read_parts(text, parts, {})
        return trivial_augment
    if name in ("rand", "randaug"):
        return _parse_rand(text, parts, noise_std=0.5 if name == "randaug" else 0.0)
    if name == "augmix":
        values = _read_parts(
            text, parts, {"m": _magnitude, "w": _count, "d": _count, "a": _positive, "mstd": _noise_std}
        )
        noise = Noise(values.get("mstd", math.inf))
        return AugMix(values.get("m", 3.0), values.get("w", 3), values.get("d"), values.get("a", 1.0), noise)
    if name in POLICIES:
        noise_std = _read_parts(text, parts, {"mstd": _noise_std}).get(
            "mstd", 0.5 if name.startswith("autoaug") else 0.0
        )
        return AutoAugment(POLICIES[name], Noise(noise_std))
    known = ", ".join(["rand", "randaug", *POLICIES, "augmix", "trivialaugwide"])
    raise ValueError(f"unknown policy {name!r} in {text!r}; there are {known}")


@dataclass(frozen=True)
class Noise:
    """Normal noise on a magnitude, clipped to 0..top; an infinite `std` stands for a uniform draw from 0..magnitude."""

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
    return OPS[name](image, noise.draw(magnitude, rng), rng, canvas)


@dataclass(frozen=True)
class RandAugment:
    """`num_ops` of `names`, drawn with replacement, or by `weights` without."""

    names: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    num_ops: int = 2
    prob: float = 0.5
    magnitude: float = TOP
    noise: Noise = Noise()

    def __call__(self, image: Image.Image, rng: random.Random, canvas: Canvas) -> Image.Image:
        for name in self._draw(rng):
            image = apply(image, (name, self.prob, self.magnitude), self.noise, rng, canvas)
        return image

    def _draw(self, rng: random.Random) -> list[str]:
        if self.weights is None:
            return rng.choices(self.names, k=self.num_ops)
        left = dict(zip(self.names, self.weights, strict=True))
        drawn: list[str] = []
        for _ in range(self.num_ops):
            drawn += rng.choices(list(left), list(left.values()))
            del left[drawn[-1]]
        return drawn


@dataclass(frozen=True)
class AutoAugment:
    """One of the sub-policies at random, all its steps in order."""

    sub_policies: tuple[tuple[Step, ...], ...]
    noise: Noise = Noise()

    def __call__(self, image: Image.Image, rng: random.Random, canvas: Canvas) -> Image.Image:
        for step in rng.choice(self.sub_policies):
            image = apply(image, step, self.noise, rng, canvas)
        return image


@dataclass(frozen=True)
class AugMix:
    """`width` chains of `depth` operations (None: 1 to 3) at `magnitude`, mixed, then mixed with the image itself."""

    magnitude: float = 3.0
    width: int = 3
    depth: int | None = None
    alpha: float = 1.0
    noise: Noise = Noise(math.inf)

    def __call__(self, image: Image.Image, rng: random.Random, canvas: Canvas) -> Image.Image:
        gammas = [rng.gammavariate(self.alpha, 1) for _ in range(self.width)]  # normalised: a Dirichlet draw
        share = rng.betavariate(self.alpha, self.alpha)
        mixed = np.zeros_like(image, dtype=np.float32)
        for gamma in gammas:
            chain = image
            for name in rng.choices(AUGMIX_OPS, k=self.depth or rng.randint(1, 3)):
                chain = apply(chain, (name, 1.0, self.magnitude), self.noise, rng, canvas)
            mixed += gamma / sum(gammas) * np.asarray(chain, dtype=np.float32)
        return Image.blend(image, Image.fromarray(mixed.clip(0, 255).astype(np.uint8)), share)


def _parse_rand(text: str, parts: list[str], noise_std: float) -> RandAugment:
    grammar = {
        "m": _magnitude,
        "n": _count,
        "p": _share,
        "mstd": _noise_std,
        "mmax": _positive,
        "inc": _switch,
        "w": _zero,
        "t": _op_set,
    }
    values = _read_parts(text, parts, grammar)
    names, weights = INCREASING_OPS if values.get("inc") else PLAIN_OPS, None
    if "w" in values:
        weights = tuple(WEIGHTS[name.removesuffix("Increasing")] for name in names)
    elif "t" in values:
        table = OP_SETS[values["t"]]
        names, weights = tuple(table), None if values["t"] == "3a" else tuple(table.values())
    policy = RandAugment(
        names,
        weights,
        num_ops=values.get("n", 2),
        prob=values.get("p", 0.5),
        magnitude=values.get("m", TOP),
        noise=Noise(values.get("mstd", noise_std), values.get("mmax", TOP)),
    )
    if weights and policy.num_ops > len(names):
        raise ValueError(f"n{policy.num_ops} in {text!r}: this set has only {len(names)} operations")
    return policy


def _read_parts(text: str, parts: list[str], grammar: dict[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Parts like "mstd0.5" -> {"mstd": 0.5}; `grammar` gives the letter codes and how their values are read."""
    values: dict[str, Any] = {}
    for part in parts:
        code = "t" if part.startswith("t") else part.rstrip("0123456789.")
        if code not in grammar:
            allowed = "takes " + ", ".join(grammar) if grammar else "takes nothing more"
            raise ValueError(f"unknown part {part!r} in {text!r}; {text.split('-')[0]} {allowed}")
        if code in values:
            raise ValueError(f"{code!r} is given twice in {text!r}")
        try:
            values[code] = grammar[code](part.removeprefix(code))
        except ValueError as error:
            raise ValueError(f"part {part!r} in {text!r}: {error}") from None
    return values


def _number(text: str, low: float, high: float, what: str) -> float:
    if not re.fullmatch(r"\d+(\.\d*)?", text) or not low <= float(text) <= high:
        raise ValueError(f"{what} is expected, not {text!r}")
    return float(text)


def _magnitude(text: str) -> float:
    return _number(text, 0, 100, "a magnitude of 0 or more")


def _positive(text: str) -> float:
    return _number(text, 1e-9, 1000, "a number above 0")


def _share(text: str) -> float:
    return _number(text, 0, 1, "a probability")


def _noise_std(text: str) -> float:
    std = _number(text, 0, math.inf, "a standard deviation")
    return math.inf if std > 100 else std


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise ValueError(f"a whole number from 1 is expected, not {text!r}")
    return int(text)


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"0 or 1 is expected, not {text!r}")
    return text == "1"


def _zero(text: str) -> int:
    if text != "0":
        raise ValueError("there is only w0")
    return 0


def _op_set(text: str) -> str:
    if text not in OP_SETS:
        raise ValueError(f"there are only {', '.join('t' + name for name in OP_SETS)}")
    return text
