"""LAMB: Adam whose step is scaled, tensor by tensor, to the size of the weights, for large batches (DeiT III's).

Source: You et al. 2019 (arXiv 1904.00962) in the variant of NVIDIA's FusedLAMB, which timm follows: the gradient is
first scaled down to a norm of at most `max_grad_norm` over all tensors, decay is part of the step, and the trust ratio
|weights| / |step| is applied to decayed tensors only.
"""

# pyright: reportPrivateImportUsage=false
# torch's `_foreach_…` functions do one operation on many tensors at once; its own optimizers are made of them.

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lamb(Optimizer):
    """All tensors of a group at once, and never a question to the device: a step can be dropped there, by `found_inf`.

    Args:
        groups: param groups with `params` and `weight_decay`; a group's tensors are assumed to step together.
        max_grad_norm: norm above which all gradients are scaled down, 1 in FusedLAMB and timm.
    """

    #: torch's way to say so: GradScaler and the loop hand over `found_inf` instead of asking whether to step
    _step_supports_amp_scaling = True

    def __init__(
        self,
        groups: list[dict],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        max_grad_norm: float = 1.0,
    ) -> None:
        # capturable: torch keeps the loaded `step` on the parameter's device
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "capturable": True})
        self.max_grad_norm = max_grad_norm

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert getattr(self, "grad_scale", None) is None, "gradients are unscaled before the step"
        trained = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        gradients = [p.grad for params in trained for p in params]
        if not gradients:
            return
        found_inf = getattr(self, "found_inf", None)
        bad = gradients[0].new_zeros((), dtype=torch.bool) if found_inf is None else found_inf.view(()) != 0
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        shrink = (norm / self.max_grad_norm).clamp(min=1.0)
        for group, params in zip(self.param_groups, trained, strict=True):
            if params:
                self._step_group(group, params, shrink, bad)

    def _step_group(self, group: dict[str, Any], params: list[Tensor], shrink: Tensor, bad: Tensor) -> None:
        """Move `params`; if `bad`, every change is multiplied by 0, gradients of NaN having been replaced."""
        averages, squares, steps = (
            [self._state_of(p)[name] for p in params] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        moves, step = (~bad).float(), steps[0] + 1  # 1 or 0
        gradients = [(p.grad / shrink).masked_fill(bad, 0.0) for p in params]  # type: ignore[operator]
        gain1, gain2 = ((1 - beta) * moves for beta in group["betas"])
        torch._foreach_mul_(averages, 1 - gain1)
        torch._foreach_add_(averages, torch._foreach_mul(gradients, gain1))
        torch._foreach_mul_(squares, 1 - gain2)
        torch._foreach_add_(squares, torch._foreach_mul(torch._foreach_mul(gradients, gradients), gain2))
        torch._foreach_add_(steps, moves)
        correction1, correction2 = (1 - beta**step for beta in group["betas"])
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_div_(denominators, correction2.sqrt())
        torch._foreach_add_(denominators, group["eps"])
        updates = list(torch._foreach_div(averages, correction1))
        torch._foreach_div_(updates, denominators)
        if group["weight_decay"]:
            torch._foreach_add_(updates, params, alpha=group["weight_decay"])
            torch._foreach_mul_(updates, _trust_ratios(params, updates))
        torch._foreach_mul_(updates, moves * group["lr"])
        torch._foreach_sub_(params, updates)

    def _state_of(self, p: Tensor) -> dict[str, Tensor]:
        state = self.state[p]
        if not state:
            zero = torch.zeros((), dtype=torch.float32, device=p.device)
            state.update(step=zero, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        return state


def _trust_ratios(params: list[Tensor], updates: list[Tensor]) -> list[Tensor]:
    """|weights| / |update| of each tensor, () each; 1 where one of them is 0."""
    weights, steps = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(updates))
    return list((weights / steps).masked_fill((weights == 0) | (steps == 0), 1.0).unbind())
