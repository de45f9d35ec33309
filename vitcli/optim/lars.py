"""LARS: SGD with each tensor's gradient scaled to the size of its weights, for self-supervision with large batches.

Source: You et al. 2017 (arXiv 1708.03888), in PyTorch's order of operations, which lightly, solo-learn and timm share:
d = ratio * (g + weight_decay * p) goes into the momentum buffer, and the learning rate is applied after it.
ratio = trust * |p| / (|g| + weight_decay * |p| + 1e-8).
"""

# pyright: reportPrivateImportUsage=false

from typing import Any

import torch
from torch import Tensor

from vitcli.optim.descent import descend, momentum_layout
from vitcli.optim.device_step import DeviceOptimizer, Part

EPS = 1e-8


class Lars(DeviceOptimizer):
    """LARS over param groups with `momentum` and `nesterov` as in SGD, and these options:

    trust: coefficient of the ratio; 0.001 in the paper, 0.02 in solo-learn.
    exclude: which parameters are neither scaled nor decayed. no_decay: those of groups without decay (lightly,
        BYOL, SimCLR). vectors: those of one dimension (solo-learn's `exclude_bias_n_norm_lars`).
    clip_lr: use min(ratio / lr, 1) as the ratio, so that the rate of a tensor is at most lr (LARC, solo-learn's
        `clip_lars_lr`).
    """

    def state_layout(self, group: dict[str, Any]) -> dict[str, float | None]:
        return momentum_layout(group)

    def update_part(self, part: Part) -> None:
        gradients, group = list(part.gradients), part.group
        if group["exclude"] == "vectors":
            scaled = [i for i, p in enumerate(part.params) if p.ndim != 1]
        else:
            scaled = range(len(gradients)) if group["weight_decay"] != 0 else []
        if scaled:
            new = _scaled([part.params[i] for i in scaled], [gradients[i] for i in scaled], group)
            for i, gradient in zip(scaled, new, strict=True):
                gradients[i] = gradient
        descend(part, gradients)


def _scaled(params: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """ratio * (g + weight_decay * p); a gradient of 0 stays 0, and weights of 0 take the gradient as it is."""
    decay = group["weight_decay"]
    weights, slopes = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(gradients))
    ratios = group["trust"] * weights / (slopes + decay * weights + EPS)
    if group["clip_lr"]:
        ratios = (ratios / group["lr"]).clamp(max=1.0)
    ratios = ratios.masked_fill(weights == 0, 1.0).masked_fill(slopes == 0, 0.0)
    scaled = list(torch._foreach_add(gradients, params, alpha=decay))
    torch._foreach_mul_(scaled, list(ratios.unbind()))
    return scaled
