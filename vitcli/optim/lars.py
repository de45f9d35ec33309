"""LARS: SGD with each tensor's gradient scaled to the size of its weights, for self-supervision with large batches.

Source: You et al. 2017 (arXiv 1708.03888), in PyTorch's order of operations, which lightly, solo-learn and timm share:
d = ratio * (g + weight_decay * p) goes into the momentum buffer, and the learning rate is applied after it.
ratio = trust * |p| / (|g| + weight_decay * |p| + 1e-8).
"""

# pyright: reportPrivateImportUsage=false

from typing import Any, Literal

import torch
from torch import Tensor

from vitcli.optim.descent import descend, momentum_layout
from vitcli.optim.device_step import DeviceOptimizer, Part

EPS = 1e-8


class Lars(DeviceOptimizer):
    """LARS over param groups.

    Args:
        groups: param groups with `params` and `weight_decay`.
        trust: coefficient of the ratio; 0.001 in the paper, 0.02 in solo-learn.
        exclude: which parameters are neither scaled nor decayed. no_decay: those of groups without decay (lightly,
            BYOL, SimCLR). vectors: those of one dimension (solo-learn's `exclude_bias_n_norm_lars`).
        clip_lr: use min(ratio / lr, 1) as the ratio, so that the rate of a tensor is at most lr (LARC, solo-learn's
            `clip_lars_lr`).
    """

    def __init__(
        self,
        groups: list[dict],
        *,
        momentum: float,
        nesterov: bool,
        trust: float,
        exclude: Literal["no_decay", "vectors"],
        clip_lr: bool,
    ) -> None:
        super().__init__(groups, momentum=momentum, nesterov=nesterov)
        self.trust, self.exclude, self.clip_lr = trust, exclude, clip_lr

    def state_layout(self, group: dict[str, Any]) -> dict[str, float | None]:
        return momentum_layout(group)

    def update_part(self, part: Part) -> None:
        gradients = list(part.gradients)
        scaled = [i for i, p in enumerate(part.params) if self._is_scaled(p, part.group)]
        if scaled:
            params = [part.params[i] for i in scaled]
            new = self._scaled(params, [gradients[i] for i in scaled], part.group)
            for i, gradient in zip(scaled, new, strict=True):
                gradients[i] = gradient
        descend(part, gradients)

    def _is_scaled(self, p: Tensor, group: dict[str, Any]) -> bool:
        return p.ndim != 1 if self.exclude == "vectors" else group["weight_decay"] != 0

    def _scaled(self, params: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """ratio * (g + weight_decay * p); a gradient of 0 stays 0, and weights of 0 take the gradient as it is."""
        decay = group["weight_decay"]
        weights, slopes = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(gradients))
        ratios = self.trust * weights / (slopes + decay * weights + EPS)
        if self.clip_lr:
            ratios = (ratios / group["lr"]).clamp(max=1.0)
        ratios = ratios.masked_fill(weights == 0, 1.0).masked_fill(slopes == 0, 0.0)
        scaled = list(torch._foreach_add(gradients, params, alpha=decay))
        torch._foreach_mul_(scaled, list(ratios.unbind()))
        return scaled
