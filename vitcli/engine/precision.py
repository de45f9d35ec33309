"""The arithmetic of a run: which data type its forward passes are computed in, and by which kernel of attention."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import nn

from vitcli.errors import UsageError
from vitcli.layers.attention import Attention, Attention2d, attention_kernel
from vitcli.parallel.parts import blocks_of
from vitcli.recipe.load import Recipe

#: amp: fp8 is bf16 for all but the products of linear layers, which `layers/float8.py` computes
_DTYPES = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}


def chosen_amp(recipe: Recipe, device: torch.device) -> Literal["off", "bf16", "fp16", "fp8"]:
    """The recipe's `amp`, with `auto` decided for this device."""
    amp = recipe.system.amp
    if amp != "auto":
        return amp
    if device.type != "cuda" or recipe.model.quantize != "none":
        return "off"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def chosen_dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    """What autocast computes matrix products and convolutions in."""
    return _DTYPES[chosen_amp(recipe, device)]


def has_float8(device: torch.device) -> bool:
    """Whether the device multiplies matrices of 8-bit floating point, as NVIDIA's have since Ada and Hopper."""
    is_nvidia = device.type == "cuda" and torch.version.hip is None
    return is_nvidia and torch.cuda.get_device_capability(device) >= (8, 9)


def train_in_float8(network: nn.Module, *, emulate: bool = False) -> str:
    """Let the linear layers of the blocks multiply in 8 bits while they train; returns a line for the log.

    Raises:
        UsageError: there is none that can.
    """
    from vitcli.layers.float8 import MULTIPLE, use_float8  # imports torchao

    layers = use_float8(blocks_of(network), emulate=emulate)
    if not layers:
        message = f"amp fp8 has no effect: no block has a linear layer whose sizes are multiples of {MULTIPLE}"
        raise UsageError(message, help="use --amp bf16")
    chosen, all_ = (sum(p.numel() for p in nn.ModuleList(of).parameters()) for of in (layers, [network]))
    return f"fp8      {len(layers)} linear layers, {100 * chosen / all_:.1f} % of the parameters; bf16 elsewhere"


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
