"""The preprocessing that weights expect: from their configuration, otherwise from the project their names belong to."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitcli.errors import WeightsError
from vitcli.image_size import ImageSize, shortest
from vitcli.models.vit_keys import Family, family_of
from vitcli.models.vit_options import options_of
from vitcli.recipe.describe import allowed_values
from vitcli.weights.configuration import Config, Keys, is_timms, refused, table
from vitcli.weights.hub_folder import PREPROCESSOR
from vitcli.weights.read import Weights

#: the recipe keys that weights can determine
KEYS = ("mean", "std", "interpolation", "crop_pct", "crop_mode", "pixel_range")
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
#: Pillow's numbers, which transformers' files use
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
#: image processors of transformers -> the values that its class has for keys that a file does not state
_SQUARE, _CLIP = {"height": 224, "width": 224}, {"image_mean": (0.48145466, 0.4578275, 0.40821073)}
_CLIP |= {"image_std": (0.26862954, 0.26130258, 0.27577711)}
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": {"size": _SQUARE, "resample": 2, "do_center_crop": False, "default_to_square": True},
    "DeiT": {"size": {"height": 256, "width": 256}, "resample": 3, "do_center_crop": True, "default_to_square": True},
    "Bit": {"size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True, "default_to_square": False, **_CLIP},
}
PROCESSORS["CLIP"] = PROCESSORS["Bit"]
_OF_ALL: dict[str, Any] = {
    "crop_size": _SQUARE, "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": HALF["mean"], "image_std": HALF["std"],
}  # fmt: skip
#: how the names of their classes end
ENDINGS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
PROCESSOR = Keys(
    PREPROCESSOR,
    honored=(
        "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
        "image_mean", "image_std", "image_processor_type", "feature_extractor_type", "default_to_square",
    ),
    fixed={"do_pad": (None, False), "do_flip_channel_order": (None, False), "crop_pct": (None,)},
    ignored=(
        "do_convert_rgb", "processor_class", "_valid_processor_keys", "input_data_format", "data_format",
        "return_tensors", "device", "disable_grouping",
    ),
)  # fmt: skip

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

    Raises:
        WeightsError: the configuration says something that these keys cannot express, or that is not known.
    """
    meta = weights.meta
    for ours in (meta.get("preprocessing"), meta.get("recipe")):
        if isinstance(ours, dict) and _are_numbers(ours.get("mean")) and _are_numbers(ours.get("std")):
            return _some_of(ours)
    config = meta.get("config", {})
    if is_timms(config) and (found := _of_timm(config, weights.source)):
        return found
    if given := meta.get("preprocessor_config"):
        return of_processor(given, weights.source)[0]
    return _by_names(weights.tensors)


def stated_size(weights: Weights) -> ImageSize | None:
    """The size of the input that transformers' preprocessor_config.json states; None if there is none."""
    given = weights.meta.get("preprocessor_config")
    return of_processor(given, weights.source)[1] if given else None


def _of_timm(config: Config, source: str) -> dict[str, Any] | None:
    """From pretrained_cfg; in old files its keys are in config.json itself. None without mean and std."""
    known = table(config, "pretrained_cfg", source) or config
    if not (_are_numbers(known.get("mean")) and _are_numbers(known.get("std"))):
        return None
    found = _some_of(known)
    for key in ("interpolation", "crop_mode"):
        if key in found and found[key] not in (words := allowed_values(key)):
            raise refused(source, f"config.json says {key}: {found[key]!r}", f"vitcli has {', '.join(words)}")
    return found


def _some_of(known: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: known[name] for name in KEYS if known.get(name) is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def of_processor(given: Config, source: str) -> tuple[dict[str, Any], ImageSize]:
    """The recipe keys and the size of the input that transformers' preprocessor_config.json states.

    Raises:
        WeightsError: as `preprocessing_of`.
    """
    PROCESSOR.check(given, source)
    kind = str(given.get("image_processor_type") or given.get("feature_extractor_type") or "")
    name = next((name for name in PROCESSORS if kind in {f"{name}{ending}" for ending in ENDINGS}), None)
    if kind and name is None:
        raise _refused(source, f"image_processor_type: {kind!r}", f"vitcli knows those of {', '.join(PROCESSORS)}")
    given = _OF_ALL | PROCESSORS[name or "ViT"] | {key: value for key, value in given.items() if value is not None}
    geometry, size = _geometry(given, source)
    return _normalization(given, source) | geometry, size


def _normalization(given: Config, source: str) -> dict[str, Any]:
    """Mean and std for pixels divided by 255, which equal rescaling by another factor and normalizing, or neither."""
    factor = given["rescale_factor"] if given["do_rescale"] else 1
    if not isinstance(factor, int | float) or factor <= 0:
        raise _refused(source, f"rescale_factor: {factor!r}", "this is not understood")
    scale = 1.0 if math.isclose(255 * factor, 1, rel_tol=1e-6) else 255 * factor
    found: dict[str, Any] = {}
    for name, without in (("mean", 0.0), ("std", 1.0)):
        values = given[f"image_{name}"] if given["do_normalize"] else (without,)
        values = [values] if isinstance(values, int | float) else values
        if not _are_numbers(values) or (name == "std" and min(values) <= 0):
            raise _refused(source, f"image_{name}: {values!r}", "this is not understood")
        found[name] = tuple(x / scale for x in values)
    return found


def _geometry(given: Config, source: str) -> tuple[dict[str, Any], ImageSize]:
    """How an image is resized and cropped, and to which size."""
    size, crop, resample = (given[key] for key in ("size", "crop_size", "resample"))
    sizes = f"size: {size!r}, crop_size: {crop!r}"
    if not given["do_resize"]:
        raise _refused(source, "do_resize: False", "vitcli resizes all images to the size of the input")
    if not isinstance(resample, int) or resample not in RESAMPLE:
        raise _refused(source, f"resample: {resample}", f"vitcli has {', '.join(RESAMPLE.values())}")
    is_squash = "height" in size if isinstance(size, dict) else given["default_to_square"]
    scaled = _sides(size)
    cropped = _sides(crop) if given["do_center_crop"] else scaled
    if scaled is None or cropped is None:
        raise _refused(source, sizes, "this is not understood")
    if not is_squash and not given["do_center_crop"]:
        raise _refused(source, f"size: {size!r} without a crop", "images would have different sizes")
    crop_pct = _crop_pct(cropped, scaled)
    if crop_pct is None:
        raise _refused(source, sizes, "the crop has another shape, or is larger")
    mode = {"crop_mode": "squash"} if is_squash else {}
    return {"interpolation": RESAMPLE[resample], "crop_pct": crop_pct} | mode, shortest(cropped)


def _crop_pct(cropped: tuple[int, int], scaled: tuple[int, int]) -> float | None:
    """The share that `cropped` is divided by, and rounded down, to get `scaled`; None: there is none."""
    crop_pct = min(small / large for small, large in zip(cropped, scaled, strict=True))
    for candidate in (crop_pct, math.nextafter(crop_pct, 0)):
        if 0.1 <= candidate <= 1 and tuple(math.floor(side / candidate) for side in cropped) == scaled:
            return candidate
    return None


def _sides(size: Any) -> tuple[int, int] | None:
    """(height, width) of a size of transformers; None if it is anything else."""
    match size:
        case {"height": height, "width": width, **rest} if not rest:
            sides = [height, width]
        case {"shortest_edge": edge, **rest} if not rest:
            sides = [edge, edge]
        case [_, _]:
            sides = list(size)
        case _:
            sides = [size, size]
    height, width = sides
    return (height, width) if all(isinstance(side, int) and side > 0 for side in sides) else None


def _refused(source: str, said: str, reason: str) -> WeightsError:
    return refused(source, f"{PREPROCESSOR} says {said}", reason)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(x, int | float) for x in value)


def _by_names(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    family = family_of(tensors)
    is_deit = family == "timm" and "dist_token" in tensors
    found = DEIT if is_deit else BY_FAMILY.get(family) if family else None
    if found and options_of(tensors).get("img_size", 0) >= LARGE_PX:
        return found | LARGE
    return found
