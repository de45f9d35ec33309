"""An exponential moving average of all weights and buffers, kept as a model of its own that can be evaluated."""

import copy
import math
from functools import cached_property

import torch
from torch import Tensor, nn

from vitcli.parallel.shards import own_part


class ExponentialMovingAverage:
    """`average.model` follows `model`: a <- d a + (1 - d) x for every floating-point tensor, after each step.

    BatchNorm's running statistics are averaged like weights (as timm, Apple and MindCV do); integers are copied.

    Args:
        model: followed by reference; its parameters and buffers must stay the same tensors from the first update on.
        decay: d after the ramp.
        ramp_steps: at step t the decay is d (1 - exp(-t / ramp_steps)), so that the start is soon forgotten; 0: d.
    """

    def __init__(self, model: nn.Module, *, decay: float, ramp_steps: int) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.ramp_steps = ramp_steps
        self.followed = model

    @cached_property
    def _tensors(self) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Averages, the values that they follow, and pairs of those that are copied.

        Of tensors that are sharded, the part of this rank. The models may be sharded until this is first asked for.
        """
        states = (model.state_dict().values() for model in (self.model, self.followed))
        pairs = [(own_part(average), own_part(value)) for average, value in zip(*states, strict=True)]
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        copied = [pair for pair in pairs if not pair[0].is_floating_point()]
        return [average for average, _ in averaged], [value for _, value in averaged], copied

    def decay_at(self, step: int) -> float:
        """The decay of the update after step `step` (from 1)."""
        return self.decay * (1 - math.exp(-step / self.ramp_steps)) if self.ramp_steps else self.decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1 - self.decay_at(step)
        averages, values, copied = self._tensors
        torch._foreach_lerp_(averages, values, weight)  # pyright: ignore[reportPrivateImportUsage]
        for average, value in copied:
            average.copy_(value)
