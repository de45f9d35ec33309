"""Adam, AdamW and NAdam without a question to the device, and the moments that LAMB and Muon share with them."""

# pyright: reportPrivateImportUsage=false

import math
from typing import Any

import torch
from torch import Tensor

from vitcli.optim.device_step import DeviceOptimizer, Part

ADAM_STATE: dict[str, float | None] = {"step": 0.0, "exp_avg": None, "exp_avg_sq": None}

#: NAdam's momentum at step t is beta1 (1 - 0.5 * 0.96^(t * this)) (Dozat 2016; torch's and Keras' default)
MOMENTUM_DECAY = 4e-3


class Adam(DeviceOptimizer):
    """For devices without torch's fused kernels: `betas`, `eps`, and `decoupled` for AdamW's decay instead of L2."""

    def state_layout(self, group: dict[str, Any]) -> dict[str, float | None]:
        return ADAM_STATE

    def update_part(self, part: Part) -> None:
        if part.group["decoupled"]:
            adamw_update(part)
        else:
            _adam_update(part._replace(gradients=part.decayed()))


class NAdam(DeviceOptimizer):
    """Adam with Nesterov momentum (Dozat 2016), L2 decay, as `torch.optim.NAdam`: `betas`, `eps`."""

    def state_layout(self, group: dict[str, Any]) -> dict[str, float | None]:
        return {**ADAM_STATE, "mu_product": 1.0}

    def update_part(self, part: Part) -> None:
        part = part._replace(gradients=part.decayed())
        group, products = part.group, part.state["mu_product"]
        beta1, _ = group["betas"]
        step, denominators = update_moments(part)
        momentum, next_momentum = (beta1 * (1 - 0.5 * 0.96 ** (t * MOMENTUM_DECAY)) for t in (step, step + 1))
        torch._foreach_mul_(products, momentum)
        updates = torch._foreach_mul(part.gradients, (1 - momentum) / (1 - products[0]))
        averages = torch._foreach_mul(part.state["exp_avg"], next_momentum / (1 - products[0] * next_momentum))
        torch._foreach_add_(updates, averages)
        torch._foreach_div_(updates, denominators)
        torch._foreach_add_(part.params, updates, alpha=-group["lr"])


def adamw_update(part: Part) -> None:
    """AdamW's step (arXiv 1711.05101): p -= lr * weight_decay * p, then Adam's."""
    torch._foreach_mul_(part.params, 1 - part.group["lr"] * part.group["weight_decay"])
    _adam_update(part)


def update_moments(part: Part) -> tuple[Tensor, list[Tensor]]:
    """Take the gradients into both moments; the step's number (), from 1, and Adam's denominators."""
    (beta1, beta2), state = part.group["betas"], part.state
    torch._foreach_add_(state["step"], 1)
    torch._foreach_lerp_(state["exp_avg"], part.gradients, 1 - beta1)
    torch._foreach_mul_(state["exp_avg_sq"], beta2)
    torch._foreach_addcmul_(state["exp_avg_sq"], part.gradients, part.gradients, 1 - beta2)
    step = state["step"][0]
    denominators = list(torch._foreach_sqrt(state["exp_avg_sq"]))
    torch._foreach_div_(denominators, bias_correction(step, beta2).sqrt())
    torch._foreach_add_(denominators, part.group["eps"])
    return step, denominators


def bias_correction(step: Tensor, beta: float) -> Tensor:
    """1 - beta^step, also accurate where beta^step is near 1."""
    return -torch.expm1(step * math.log(beta)) if beta else torch.ones_like(step)


def _adam_update(part: Part) -> None:
    step, denominators = update_moments(part)
    updates = torch._foreach_div(part.state["exp_avg"], denominators)
    torch._foreach_mul_(updates, part.group["lr"] / bias_correction(step, part.group["betas"][0]))
    torch._foreach_sub_(part.params, updates)
