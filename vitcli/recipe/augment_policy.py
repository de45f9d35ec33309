"""Parses the text that names an augmentation policy in a recipe, such as `rand-m9-mstd0.5-inc1`. No images here.

The notation is timm's: the policy, then parts of a letter code and a value, joined by dashes.

    rand        RandAugment: n operations per image (default 2), each applied with probability p (0.5) at magnitude m
                (10) plus normal noise of mstd (0; above 100: uniform in 0..m), clipped to 0..mmax (10); inc1:
                operations whose effect grows with the magnitude; t3a: only solarize, desaturate and blur
    randaug     the same in MindCV's notation, with mstd 0.5 unless given
    original    AutoAugment's ImageNet policy; originalr: its posterize removes more bits with the magnitude
    autoaug     the same two in MindCV's notation (autoaug, autoaugr), with mstd 0.5 unless given
    3a          3-Augment: solarize, gray or blur (Touvron et al. 2022, arXiv 2204.07118)     [these five take mstd]
    augmix      AugMix: w chains (3) of d operations (default: 1 to 3) at magnitude m (3), mixed by Dirichlet(a)
                weights (a 1) and then with the image (Hendrycks et al. 2020, arXiv 1912.02781); mstd: default uniform
    trivialaugwide   TrivialAugment; without parts
"""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

#: policies that are tables of sub-policies
TABLES = ("original", "originalr", "autoaug", "autoaugr", "3a")


def check_policy(text: str) -> str | None:
    """What is wrong with the policy `text`, in words; None if it is valid."""
    try:
        read_policy(text)
    except ValueError as error:
        return str(error)
    return None


def read_policy(text: str) -> tuple[str, dict[str, Any]]:
    """The name of a policy and its parts: "rand-m9-inc1" is ("rand", {"m": 9.0, "inc": True}).

    Raises a ValueError that names the wrong part and what is allowed instead.
    """
    name, *parts = text.split("-")
    if name not in _GRAMMARS:
        raise ValueError(f"unknown policy {name!r} in {text!r}; there are {', '.join(_GRAMMARS)}")
    grammar, values = _GRAMMARS[name], dict[str, Any]()
    for part in parts:
        code = "t" if part.startswith("t") else part.rstrip("0123456789.")
        if code not in grammar:
            allowed = "takes " + ", ".join(grammar) if grammar else "takes no parts"
            raise ValueError(f"unknown part {part!r} in {text!r}; {name} {allowed}")
        if code in values:
            raise ValueError(f"{code!r} is given twice in {text!r}")
        try:
            values[code] = grammar[code](part.removeprefix(code))
        except ValueError as error:
            raise ValueError(f"part {part!r} in {text!r}: {error}") from None
    return name, values


def _number(low: float, high: float, what: str, text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d*)?", text) or not low <= float(text) <= high:
        raise ValueError(f"{what} is expected, not {text!r}")
    return float(text)


def _noise_std(text: str) -> float:
    std = _number(0, math.inf, "a standard deviation", text)
    return math.inf if std > 100 else std


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise ValueError(f"a whole number of 1 or more is expected, not {text!r}")
    return int(text)


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"0 or 1 is expected, not {text!r}")
    return text == "1"


def _op_set(text: str) -> str:
    if text != "3a":
        raise ValueError("there is only t3a")
    return text


_magnitude = partial(_number, 0, 100, "a magnitude of 0 or more")
_positive = partial(_number, 1e-9, 1000, "a number above 0")
_share = partial(_number, 0, 1, "a probability")

#: policy -> letter code -> parser of its value
_GRAMMARS: dict[str, dict[str, Callable[[str], Any]]] = {
    **{
        rand: {
            "m": _magnitude, "n": _count, "p": _share, "mstd": _noise_std, "mmax": _positive, "inc": _switch,
            "t": _op_set,
        }
        for rand in ("rand", "randaug")
    },
    **{table: {"mstd": _noise_std} for table in TABLES},
    "augmix": {"m": _magnitude, "w": _count, "d": _count, "a": _positive, "mstd": _noise_std},
    "trivialaugwide": {},
}  # fmt: skip
