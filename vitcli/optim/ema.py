"""An exponential moving average of all weights and buffers, kept as a model of its own that can be evaluated."""

import copy
import math

import torch
from torch import nn


class ExponentialMovingAverage:
    """`average.model` follows `model`: a <- d a + (1 - d) x for every floating-point tensor, after each step.

    BatchNorm's running statistics are averaged like weights (as timm, Apple and MindCV do); integers are copied.

    Args:
        decay: d after the ramp.
        ramp_steps: at step t the decay is d (1 - exp(-t / ramp_steps)), so that the start is soon forgotten; 0: d.
    """

    def __init__(self, model: nn.Module, *, decay: float, ramp_steps: int) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.ramp_steps = ramp_steps

    def decay_at(self, step: int) -> float:
        """The decay of the update after step `step` (from 1)."""
        return self.decay * (1 - math.exp(-step / self.ramp_steps)) if self.ramp_steps else self.decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards `model` after its `step`-th step."""
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        averages, values = map(list, zip(*floating, strict=True))
        torch._foreach_lerp_(averages, values, 1 - self.decay_at(step))  # pyright: ignore[reportPrivateImportUsage]
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)
