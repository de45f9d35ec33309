"""From a name to a model: each file of this folder that holds a `VARIANTS` table is found, none is listed by hand."""

import importlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

from torch import nn

from vitcli.errors import UsageError
from vitcli.recipe.names import files_of, model_options, nearest, registered
from vitcli.recipe.plugins import imported, plugin_files


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a variant without building it."""

    name: str
    img_size: int  # px, side of the square image it was published with
    crop_pct: float  # side of the center crop / shorter side of the resized image, for evaluation


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell `pattern`, in alphabetical order."""
    return sorted(name for name in registered("models") if fnmatchcase(name, pattern))


def model_info(name: str) -> ModelInfo:
    """Published image size and crop of the variant `name`; an unknown name raises UsageError."""
    variant = _file_of(name).VARIANTS[name]
    if not hasattr(variant, "img_size") or not hasattr(variant, "crop_pct"):  # of a plugin
        raise UsageError(f"the row {name!r} of VARIANTS is {variant!r}", help="it needs img_size and crop_pct")
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
    **options: Any,
) -> nn.Module:
    """A freshly initialized model in training mode.

    Args:
        name: a name out of `list_models()`.
        num_classes: outputs of the head; 0 leaves the head out, the model then returns (B, D) features.
        in_chans: channels of the input image.
        img_size: side in px of the images to come; None takes the published one.
        drop_rate: dropout before the head, 0..1.
        drop_path_rate: stochastic depth of the last block, 0..1; the other blocks follow the model's own rule.
        layer_scale_init: first value of the layer scales; None takes the published one.
        grad_checkpointing: store less and compute more in training.
        options: what this model has beyond that: arguments of `create` in its file.

    Raises:
        UsageError: no model has this name, the text names the nearest one; or the model has no such option.
    """
    module = _file_of(name)
    if num_classes < 0:
        raise UsageError(f"num_classes is {num_classes}", help="0 leaves the head out, otherwise give the number")
    taken = model_options(name)
    if unknown := [option for option in options if option not in taken]:
        raise UsageError(f"{name} has no {unknown[0]!r}", help=f"it takes {', '.join(taken)}")
    return module.create(
        name,
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
        layer_scale_init=layer_scale_init,
        grad_checkpointing=grad_checkpointing,
        **options,
    )


def _file_of(name: str) -> ModuleType:
    """The module that builds the variant `name`; only this one is imported."""
    files = files_of("models")
    if name not in files:
        likely = nearest(name, list(files))
        help = f"did you mean {likely!r}?" if likely else f"known models: {', '.join(sorted(files))}"
        raise UsageError(f"no model is named {name!r}", help=f"{help}\na model of a plugin needs --plugin FILE")
    file = files[name]
    return imported(file) if file in plugin_files() else importlib.import_module(f"vitcli.models.{file.stem}")
