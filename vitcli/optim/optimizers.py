"""The optimizers a recipe can name. Each can drop a step on the device: torch's fused kernels, or our own classes."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from vitcli.optim.adam import Adam, NAdam
from vitcli.optim.descent import SGD, Adagrad, RMSprop
from vitcli.optim.lamb import Lamb
from vitcli.optim.lars import Lars
from vitcli.optim.low_bit import LowBitAdamW
from vitcli.optim.muon import MuonWithAdamW
from vitcli.recipe.schema import Optimizer as Section

#: where the fused kernels of torch's Adam, AdamW and SGD take `found_inf`
FUSED_DEVICES = ("cpu", "cuda")


#: bytes of state that each parameter of a layer has at least; those of `sgd` and its like have 4 with momentum
STATE_BYTES = {
    "adamw": 8, "adam": 8, "nadam": 8, "lamb": 8, "rmsprop": 4, "adagrad": 4, "muon": 4, "nesterov": 4,
    "adamw_bf16": 4, "adamw_fp8": 2, "adamw_8bit": 2, "adamw_4bit": 1,
}  # fmt: skip


def build_optimizer(section: Section, groups: list[dict], device: torch.device, module: nn.Module) -> Optimizer:
    """The recipe's optimizer for the `param_groups` of `module`; the loop sets its learning rate before each step."""
    fused = device.type in FUSED_DEVICES
    betas, momentum = section.betas, section.momentum
    nesterov = section.use_nesterov and momentum > 0
    eps = section.eps or {"lamb": 1e-6, "adagrad": 1e-10}.get(section.opt, 1e-8)
    match section.opt:
        case "adamw" | "adam" if fused:
            kind = torch.optim.AdamW if section.opt == "adamw" else torch.optim.Adam
            return kind(groups, betas=betas, eps=eps, fused=True)
        case "adamw" | "adam":
            return Adam(groups, betas=betas, eps=eps, decoupled=section.opt == "adamw")
        case "adamw_bf16" | "adamw_fp8" | "adamw_8bit" | "adamw_4bit":
            return LowBitAdamW(groups, section.opt.removeprefix("adamw_"), betas=betas, eps=eps)
        case "nadam":
            return NAdam(groups, betas=betas, eps=eps)
        case "sgd" | "momentum":
            return _sgd(groups, momentum, nesterov, fused)
        case "nesterov":
            return _sgd(groups, momentum or 0.9, True, fused)
        case "rmsprop":
            return RMSprop(groups, alpha=0.9, eps=eps, momentum=momentum, nesterov=False)
        case "adagrad":
            return Adagrad(groups, eps=eps)
        case "lamb":
            return Lamb(groups, betas=betas, eps=eps)
        case "lars":
            options = {"trust": section.lars_trust, "exclude": section.lars_exclude, "clip_lr": section.lars_clip_lr}
            return Lars(groups, momentum=momentum, nesterov=nesterov, **options)
        case "muon":
            return MuonWithAdamW(groups, module, momentum=momentum, betas=betas, eps=eps)
    raise ValueError(f"there is no optimizer {section.opt}")


def state_bytes(section: Section) -> int:
    """What the optimizer keeps at least of each parameter, in bytes."""
    return STATE_BYTES.get(section.opt, 4 if section.momentum else 0)


def _sgd(groups: list[dict], momentum: float, nesterov: bool, fused: bool) -> Optimizer:
    """Momentum starts at zero, which gives the same first step as torch's start with the gradient.

    torch's fused kernel leaves a new buffer uninitialized when the first step is dropped, and does not take shards.
    """
    is_sharded = any(isinstance(p, DTensor) for group in groups for p in group["params"])
    if is_sharded or not fused:
        return SGD(groups, momentum=momentum, nesterov=nesterov)
    optimizer = torch.optim.SGD(groups, momentum=momentum, nesterov=nesterov, fused=True)
    for group in optimizer.param_groups:
        for p in group["params"] if momentum else ():
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def drop_step_if(optimizer: Optimizer, bad: Tensor) -> None:
    """Let the next step change neither weights nor state where `bad` () is true, without reading it on the host.

    This is how torch's loss scaler talks to fused kernels.
    """
    vars(optimizer).update(grad_scale=None, found_inf=bad.float())
