"""Builds the network that a recipe describes, with fresh weights."""

import torch
from torch import nn

from vitcli.models.registry import create_model
from vitcli.models.shapes import shapes_only
from vitcli.recipe.load import Recipe
from vitcli.recipe.schema import OWN_KEYS


def build_network(recipe: Recipe, num_classes: int) -> nn.Module:
    """The recipe's model with fresh weights. num_classes 0: without a head, so that it returns features (B, D)."""
    section = recipe.model
    own = {name: value for name in OWN_KEYS if (value := recipe.get(name)) is not None}
    return create_model(
        section.model,
        num_classes=num_classes,
        in_chans=section.in_channels,
        img_size=recipe.augmentation.image_resize,
        drop_rate=section.drop_rate,
        drop_path_rate=section.drop_path_rate,
        layer_scale_init=section.layer_scale_init,
        grad_checkpointing=section.grad_checkpointing,
        **own,
    )


def trains_on_one_image(network: nn.Module, in_channels: int, size: tuple[int, int]) -> bool:
    """Whether BatchNorms see more than one value per channel in a batch of one image of (height, width) px.

    network: on the device meta, where nothing is computed.
    """
    with shapes_only():
        try:
            network.train()(torch.empty(1, in_channels, *size))
        except ValueError as error:
            if "Expected more than 1 value per channel" in str(error):
                return False
            raise
    return True


def float_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that int8 keeps in float: the first one, and those that compute the logits."""
    return (*getattr(model, "first_convs", ()), *getattr(model, "classifiers", ()), "fine_tune")
