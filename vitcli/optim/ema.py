"""An exponential moving average of all weights and buffers, kept as a model of its own that can be evaluated."""

import copy
import math

import torch
from torch import nn


class ExponentialMovingAverage:
    """`average.model` follows `model`: a <- d a + (1 - d) x for every floating-point tensor, after each step.

    BatchNorm's running statistics are averaged like weights (as timm, Apple and MindCV do); integers are copied.

    Args:
        model: followed by reference; its parameters and buffers must stay the same tensors.
        decay: d after the ramp.
        ramp_steps: at step t the decay is d (1 - exp(-t / ramp_steps)), so that the start is soon forgotten; 0: d.
    """

    def __init__(self, model: nn.Module, *, decay: float, ramp_steps: int) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.ramp_steps = ramp_steps
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._averages = [average for average, _ in pairs if average.is_floating_point()]
        self._values = [value for _, value in pairs if value.is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    def decay_at(self, step: int) -> float:
        """The decay of the update after step `step` (from 1)."""
        return self.decay * (1 - math.exp(-step / self.ramp_steps)) if self.ramp_steps else self.decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1 - self.decay_at(step)
        torch._foreach_lerp_(self._averages, self._values, weight)  # pyright: ignore[reportPrivateImportUsage]
        for average, value in self._copied:
            average.copy_(value)
