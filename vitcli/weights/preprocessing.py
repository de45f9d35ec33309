"""The preprocessing that weights expect: from their configuration, otherwise from the project their names belong to."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitcli.models.vit_keys import Family, family_of
from vitcli.models.vit_options import options_of
from vitcli.weights.read import Weights

#: the recipe keys that weights can determine
KEYS = ("mean", "std", "interpolation", "crop_pct")
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
#: Pillow's numbers, which transformers' files use
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}

#: torchvision's IMAGENET1K_V1: 256 px, then a crop of 224; Google's: a little more than the crop
BY_FAMILY: dict[Family, dict[str, Any]] = {
    "torchvision": {**IMAGENET, "interpolation": "bilinear", "crop_pct": 0.875},
    "google": {**HALF, "interpolation": "bicubic", "crop_pct": 0.9},
}
DEIT = {**IMAGENET, "interpolation": "bicubic", "crop_pct": 0.9}
#: for all of them from this image size on: fine-tuned on whole images (torchvision: SWAG)
LARGE_PX = 384
LARGE = {"interpolation": "bicubic", "crop_pct": 1.0}


def preprocessing_of(weights: Weights) -> dict[str, Any] | None:
    """Recipe keys (some of `KEYS`) with their values; None if unknown.

    timm's names alone are not enough: there are weights with both kinds of mean under them.
    """
    meta = weights.meta
    config: dict[str, Any] = meta.get("config", {})
    for known in (meta.get("preprocessing"), meta.get("recipe"), config.get("pretrained_cfg"), config):
        if isinstance(known, dict) and _are_numbers(known.get("mean")) and _are_numbers(known.get("std")):
            found = {name: known[name] for name in KEYS if known.get(name) is not None}
            return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    given = meta.get("preprocessor_config", {})
    if _are_numbers(given.get("image_mean")):
        return _of_transformers(given)
    return _by_names(weights.tensors)


def _of_transformers(given: Mapping[str, Any]) -> dict[str, Any]:
    """From preprocessor_config.json. Without a crop transformers distorts the image to a square; here it is cropped."""
    std = given["image_std"] if _are_numbers(given.get("image_std")) else (1.0, 1.0, 1.0)
    found = {"mean": tuple(given["image_mean"]), "std": tuple(std)}
    resample = given.get("resample")
    if isinstance(resample, int) and resample in RESAMPLE:
        found["interpolation"] = RESAMPLE[resample]
    size, crop = (_side(given.get(name)) for name in ("size", "crop_size"))
    if not given.get("do_center_crop"):
        found["crop_pct"] = 1.0
    elif size and crop and 0.1 <= crop / size <= 1:
        found["crop_pct"] = crop / size
    return found


def _side(size: Any) -> int | None:
    if isinstance(size, dict):
        size = size.get("shortest_edge") or size.get("height")
    return size if isinstance(size, int) and size > 0 else None


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(x, int | float) for x in value)


def _by_names(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    family = family_of(tensors)
    is_deit = family == "timm" and "dist_token" in tensors
    found = DEIT if is_deit else BY_FAMILY.get(family) if family else None
    if found and options_of(tensors).get("img_size", 0) >= LARGE_PX:
        return found | LARGE
    return found
