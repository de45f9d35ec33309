"""LAMB: Adam with each tensor's step scaled to the size of its weights, for large batches (used by DeiT III).

Source: You et al. 2019 (arXiv 1904.00962) in the variant of NVIDIA's FusedLAMB, which timm follows: the gradient is
first scaled down to a norm of at most 1 over all tensors, decay is part of the step, and the trust ratio
|weights| / |step| is applied to decayed tensors only.
"""

# pyright: reportPrivateImportUsage=false

from typing import Any

import torch
from torch import Tensor

from vitcli.optim.adam import ADAM_STATE, bias_correction, update_moments
from vitcli.optim.device_step import DeviceOptimizer, Part


class Lamb(DeviceOptimizer):
    """LAMB over param groups with `betas` and `eps`; it clips gradients in addition to the recipe's `clip_grad`."""

    def state_layout(self, group: dict[str, Any]) -> dict[str, float | None]:
        return ADAM_STATE

    def update(self, parts: list[Part]) -> None:
        norms = torch._foreach_norm([gradient for part in parts for gradient in part.gradients])
        shrink = torch.linalg.vector_norm(torch.stack(norms)).clamp(min=1.0)
        for part in parts:
            self.update_part(part._replace(gradients=list(torch._foreach_div(part.gradients, shrink))))

    def update_part(self, part: Part) -> None:
        group = part.group
        step, denominators = update_moments(part)
        updates = list(torch._foreach_div(part.state["exp_avg"], bias_correction(step, group["betas"][0])))
        torch._foreach_div_(updates, denominators)
        if group["weight_decay"]:
            torch._foreach_add_(updates, part.params, alpha=group["weight_decay"])
            torch._foreach_mul_(updates, _trust_ratios(part.params, updates))
        torch._foreach_add_(part.params, updates, alpha=-group["lr"])


def _trust_ratios(params: list[Tensor], updates: list[Tensor]) -> list[Tensor]:
    """|weights| / |update| of each tensor, () each; 1 where one of them is 0."""
    weights, steps = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(updates))
    return list((weights / steps).masked_fill((weights == 0) | (steps == 0), 1.0).unbind())
