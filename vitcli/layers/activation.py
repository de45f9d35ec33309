"""The activations that published transformers use in their feed-forward networks, by name."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): the approximation of GELU in OpenAI's CLIP. Same shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}
