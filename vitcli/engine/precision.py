"""The arithmetic of a run: which data type its forward passes are computed in, and by which kernel of attention."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import nn

from vitcli.layers.attention import Attention, Attention2d, attention_kernel
from vitcli.recipe.load import Recipe


def chosen_amp(recipe: Recipe, device: torch.device) -> Literal["off", "bf16", "fp16"]:
    """The recipe's `amp`, with `auto` decided for this device."""
    amp = recipe.system.amp
    if amp != "auto":
        return amp
    if device.type != "cuda" or recipe.model.quantize != "none":
        return "off"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def chosen_dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    """What matrix products and convolutions are computed in."""
    return {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[chosen_amp(recipe, device)]


def attention_in_words(network: nn.Module, recipe: Recipe, device: torch.device) -> str | None:
    """Which kernel PyTorch chose for the heads of the network; None: it has no attention, or there is no GPU."""
    layer = next((layer for layer in network.modules() if isinstance(layer, Attention | Attention2d)), None)
    if layer is None or device.type != "cuda":
        return None
    kernel = attention_kernel(device, chosen_dtype(recipe, device), head_dim=layer.head_dim)
    return f"{kernel} attention, heads of {layer.head_dim}"


def build_autocast(recipe: Recipe, device: torch.device) -> Callable[[], torch.autocast]:
    """A function that makes the context in which forward passes run."""
    dtype = chosen_dtype(recipe, device)
    return partial(torch.autocast, device.type, dtype=dtype, enabled=dtype != torch.float32)
