"""The one-line language that recipes name an augmentation policy by: `rand-m9-mstd0.5-inc1`. Text only, no images.

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
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: sub-policy tables of AutoAugment's kind, and the sets of operations that `t` chooses for RandAugment
TABLES = ("original", "originalr", "autoaug", "autoaugr", "v0", "v0r", "3a")
OP_SETS = ("3a", "3aw", "weights")
#: a weighted set is drawn from without replacement, and the smallest holds so many operations
MOST_WEIGHTED_OPS = 14


@dataclass(frozen=True)
class PolicyText:
    """The name of a policy and its parts: "rand-m9-inc1" is ("rand", {"m": 9.0, "inc": True})."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)


def check_policy(text: str) -> str | None:
    """What is wrong with the policy `text`, in words; None if nothing is."""
    try:
        read_policy(text)
    except ValueError as error:
        return str(error)
    return None


def read_policy(text: str) -> PolicyText:
    """The parts of the policy `text`. Raises ValueError that names the part and what is allowed in its place."""
    name, *parts = text.split("-")
    if name not in _GRAMMARS:
        raise ValueError(f"unknown policy {name!r} in {text!r}; there are {', '.join(_GRAMMARS)}")
    values = _read_parts(text, parts, _GRAMMARS[name])
    weighted = "w" in values or values.get("t") in ("3aw", "weights")
    if weighted and values.get("n", 1) > MOST_WEIGHTED_OPS:
        raise ValueError(f"n{values['n']} in {text!r}: at most {MOST_WEIGHTED_OPS} operations can be drawn by weight")
    return PolicyText(name, values)


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


_RAND: dict[str, Callable[[str], Any]] = {
    "m": _magnitude, "n": _count, "p": _share, "mstd": _noise_std, "mmax": _positive, "inc": _switch, "w": _zero,
    "t": _op_set,
}  # fmt: skip
_AUGMIX: dict[str, Callable[[str], Any]] = {
    "m": _magnitude,
    "w": _count,
    "d": _count,
    "a": _positive,
    "mstd": _noise_std,
}
#: policy -> the letter codes it takes and how their values are read
_GRAMMARS: dict[str, dict[str, Callable[[str], Any]]] = {
    "rand": _RAND,
    "randaug": _RAND,
    **{table: {"mstd": _noise_std} for table in TABLES},
    "augmix": _AUGMIX,
    "trivialaugwide": {},
}
