"""From a name to a model: each file of this folder that holds a `VARIANTS` table is found, none is listed by hand."""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from types import ModuleType

from torch import nn

import vitcli.models
from vitcli.errors import UsageError


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a variant without building it."""

    name: str
    img_size: int  # px, side of the square image it was published with
    crop_pct: float  # side of the centre crop / shorter side of the resized image, for evaluation


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell `pattern`, in alphabetical order."""
    return sorted(name for name in _file_of_variant() if fnmatchcase(name, pattern))


def model_info(name: str) -> ModelInfo:
    """Published image size and crop of the variant `name`; an unknown name raises UsageError."""
    variant = _file_of(name).VARIANTS[name]
    return ModelInfo(name=name, img_size=variant.img_size, crop_pct=variant.crop_pct)


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    img_size: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    layer_scale_init: float | None = None,
    grad_checkpointing: bool = False,
) -> nn.Module:
    """A freshly initialised model in training mode.

    Args:
        name: a name out of `list_models()`.
        num_classes: outputs of the head; 0 leaves the head out, the model then returns (B, D) features.
        in_chans: channels of the input image.
        img_size: side in px of the images to come; None takes the published one.
        drop_rate: dropout before the head, 0..1.
        drop_path_rate: stochastic depth of the last block, 0..1; the other blocks follow the model's own rule.
        layer_scale_init: first value of the layer scales; None takes the published one.
        grad_checkpointing: store less and compute more in training.

    Raises:
        UsageError: no model has this name; the text names the nearest one.
    """
    if num_classes < 0:
        raise UsageError(f"num_classes is {num_classes}", help="0 leaves the head out, otherwise give the number")
    return _file_of(name).create(
        name,
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
        layer_scale_init=layer_scale_init,
        grad_checkpointing=grad_checkpointing,
    )


def _file_of(name: str) -> ModuleType:
    files = _file_of_variant()
    if name not in files:
        raise UsageError(f"no model is named {name!r}", help=_nearest(name, files))
    return files[name]


def _nearest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {matches[0]!r}?" if matches else f"known models: {', '.join(sorted(known))}"


@cache
def _file_of_variant() -> dict[str, ModuleType]:
    """{variant name: the module that builds it}, by importing each file of this folder once."""
    files: dict[str, ModuleType] = {}
    for found in pkgutil.iter_modules(vitcli.models.__path__):
        if found.name == "registry":
            continue
        module = importlib.import_module(f"vitcli.models.{found.name}")
        for name in getattr(module, "VARIANTS", {}):
            assert name not in files, f"{name} is defined by {files[name].__name__} and by {module.__name__}"
            files[name] = module
    return files
