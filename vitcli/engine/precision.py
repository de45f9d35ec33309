"""The arithmetic of a run: which data type its forward passes are computed in."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from vitcli.recipe.load import Recipe


def chosen_amp(recipe: Recipe, device: torch.device) -> Literal["off", "bf16", "fp16"]:
    """The recipe's `amp`, with `auto` decided for this device."""
    amp = recipe.system.amp
    if amp != "auto":
        return amp
    if device.type != "cuda" or recipe.model.quantize != "none":
        return "off"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def build_autocast(recipe: Recipe, device: torch.device) -> Callable[[], torch.autocast]:
    """A function that makes the context in which forward passes run."""
    amp = chosen_amp(recipe, device)
    dtype = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    return partial(torch.autocast, device.type, dtype=dtype, enabled=amp != "off")
