"""From a name of the catalog to a model: only the file that builds it is imported."""

from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from vitcli import catalog
from vitcli.catalog import model_info
from vitcli.errors import UsageError
from vitcli.image_size import ImageSize, shortest


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell `pattern`, in alphabetical order."""
    return sorted(name for name in catalog.names("models") if fnmatchcase(name, pattern))


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    img_size: ImageSize | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    layer_scale_init: float | None = None,
    grad_checkpointing: bool = False,
    **options: Any,
) -> nn.Module:
    """A freshly initialized model in training mode.

    Args:
        name: one of `list_models()`.
        num_classes: outputs of the head. 0: no head; the model returns features (B, D).
        in_chans: channels of the input image.
        img_size: of the input images in px: the side of a square, or (height, width). None: the published size.
        drop_rate: dropout before the head, 0..1.
        drop_path_rate: stochastic depth of the last block, 0..1; the other blocks follow the model's own rule.
        layer_scale_init: initial value of the layer scales. None: the published value.
        grad_checkpointing: recompute activations in the backward pass, to save memory.
        options: arguments that only this model has; `catalog.model_info(name).options` lists them.

    Raises:
        UsageError: there is no such model, or the model has no such option.
    """
    info = model_info(name)
    if num_classes < 0:
        raise UsageError(f"num_classes is {num_classes}", help="give the number of classes, or 0 for no head")
    if unknown := [option for option in options if option not in info.options]:
        taken = (*catalog.MODEL_ARGUMENTS, *info.options)
        raise UsageError(f"{name} has no option {unknown[0]!r}", help=f"it takes {', '.join(taken)}")
    return catalog.load("models", name)(
        name,
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=shortest(info.img_size if img_size is None else img_size),
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
        layer_scale_init=layer_scale_init,
        grad_checkpointing=grad_checkpointing,
        **options,
    )
