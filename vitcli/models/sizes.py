"""How large a model is, found by building it without values: nothing is computed, and no memory is needed."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitcli.catalog import Sizes, model_info
from vitcli.image_size import ImageSize, height_and_width
from vitcli.layers.reparam import reparameterize
from vitcli.models.registry import create_model
from vitcli.models.shapes import shapes_only


def without_values(name: str, img_size: ImageSize | None = None, num_classes: int = 1000) -> nn.Module:
    """The model in evaluation, on the device meta."""
    with shapes_only():
        return create_model(name, num_classes=num_classes, img_size=img_size).eval()


def measured_sizes(name: str) -> Sizes:
    """What `catalog.MODELS` has for a published model, of any model."""
    model = without_values(name)
    fused = reparameterize(model)
    gmacs = gmacs_of(fused, 3, height_and_width(model_info(name).img_size))
    return Sizes(num_parameters(model), num_parameters(fused), gmacs)


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def gmacs_of(model: nn.Module, in_channels: int, size: tuple[int, int]) -> float:
    """Of a model on the device meta, for one image of (height, width) px: convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, in_channels, *size, device="meta"))
    return counter.get_total_flops() / 2e9
