"""SGD, RMSprop and Adagrad without a question to the device: a gradient, scaled or not, with momentum or not."""

# pyright: reportPrivateImportUsage=false

from typing import Any

import torch
from torch import Tensor

from vitcli.optim.device_step import DeviceOptimizer, Part


class SGD(DeviceOptimizer):
    """As `torch.optim.SGD`, for devices without its fused kernel: `momentum`, `nesterov`."""

    def state_layout(self, group: dict[str, Any]) -> dict[str, float | None]:
        return momentum_layout(group)

    def update_part(self, part: Part) -> None:
        descend(part, part.decayed())


class RMSprop(DeviceOptimizer):
    """As `torch.optim.RMSprop`: the gradient divided by the root of its mean square (Hinton 2012), then momentum."""

    def state_layout(self, group: dict[str, Any]) -> dict[str, float | None]:
        return {"square_avg": None, **momentum_layout(group)}

    def update_part(self, part: Part) -> None:
        gradients, squares, alpha = part.decayed(), part.state["square_avg"], part.group["alpha"]
        torch._foreach_mul_(squares, alpha)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - alpha)
        descend(part, _divided_by_root(gradients, squares, part.group["eps"]))


class Adagrad(DeviceOptimizer):
    """As `torch.optim.Adagrad`: the gradient divided by the root of the sum of all squares (Duchi et al. 2011)."""

    def state_layout(self, group: dict[str, Any]) -> dict[str, float | None]:
        return {"sum": None}

    def update_part(self, part: Part) -> None:
        gradients, sums = part.decayed(), part.state["sum"]
        torch._foreach_addcmul_(sums, gradients, gradients)
        updates = _divided_by_root(gradients, sums, part.group["eps"])
        torch._foreach_add_(part.params, updates, alpha=-part.group["lr"])


def momentum_layout(group: dict[str, Any]) -> dict[str, float | None]:
    """The state that `descend` needs."""
    return {"momentum_buffer": None} if group["momentum"] else {}


def descend(part: Part, gradients: list[Tensor]) -> None:
    """b = momentum * b + g, then p -= lr * b; with Nesterov momentum p -= lr * (g + momentum * b)."""
    momentum = part.group["momentum"]
    if momentum:
        buffers = part.state["momentum_buffer"]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        nesterov = part.group["nesterov"]
        gradients = list(torch._foreach_add(gradients, buffers, alpha=momentum)) if nesterov else buffers
    torch._foreach_add_(part.params, gradients, alpha=-part.group["lr"])


def _divided_by_root(gradients: list[Tensor], squares: list[Tensor], eps: float) -> list[Tensor]:
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, eps)
    return list(torch._foreach_div(gradients, roots))
