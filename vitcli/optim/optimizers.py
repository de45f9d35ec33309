"""The optimizers a recipe can name. Each can drop a step on the device: torch's fused kernels, or our own classes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitcli.optim.adam import Adam, NAdam
from vitcli.optim.descent import SGD, Adagrad, RMSprop
from vitcli.optim.lamb import Lamb
from vitcli.optim.lars import Lars
from vitcli.optim.muon import MuonWithAdamW
from vitcli.recipe.schema import Optimizer as Section

Groups = list[dict]

#: where the fused kernels of torch's Adam, AdamW and SGD take `found_inf`
FUSED_DEVICES = ("cpu", "cuda")


def _adamw(groups: Groups, s: Section, module: nn.Module, fused: bool) -> Optimizer:
    if not fused:
        return Adam(groups, betas=s.betas, eps=s.eps or 1e-8, decoupled=True)
    return torch.optim.AdamW(groups, betas=s.betas, eps=s.eps or 1e-8, fused=True)


def _adam(groups: Groups, s: Section, module: nn.Module, fused: bool) -> Optimizer:
    """Decay is added to the gradient (L2), unlike AdamW's."""
    if not fused:
        return Adam(groups, betas=s.betas, eps=s.eps or 1e-8, decoupled=False)
    return torch.optim.Adam(groups, betas=s.betas, eps=s.eps or 1e-8, fused=True)


def _nadam(groups: Groups, s: Section, module: nn.Module, fused: bool) -> Optimizer:
    return NAdam(groups, betas=s.betas, eps=s.eps or 1e-8)


def _sgd(groups: Groups, s: Section, module: nn.Module, fused: bool) -> Optimizer:
    return _descent(groups, s.momentum, s.use_nesterov and s.momentum > 0, fused)


def _nesterov(groups: Groups, s: Section, module: nn.Module, fused: bool) -> Optimizer:
    return _descent(groups, s.momentum or 0.9, True, fused)


def _descent(groups: Groups, momentum: float, nesterov: bool, fused: bool) -> Optimizer:
    """Momentum starts at zero, which gives the same first step as torch's start with the gradient.

    torch's fused kernel leaves a new buffer uninitialized when the first step is dropped.
    """
    if not fused:
        return SGD(groups, momentum=momentum, nesterov=nesterov)
    optimizer = torch.optim.SGD(groups, momentum=momentum, nesterov=nesterov, fused=True)
    for group in optimizer.param_groups:
        for p in group["params"] if momentum else ():
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def _rmsprop(groups: Groups, s: Section, module: nn.Module, fused: bool) -> Optimizer:
    return RMSprop(groups, alpha=0.9, eps=s.eps or 1e-8, momentum=s.momentum)


def _adagrad(groups: Groups, s: Section, module: nn.Module, fused: bool) -> Optimizer:
    return Adagrad(groups, eps=s.eps or 1e-10)


def _lamb(groups: Groups, s: Section, module: nn.Module, fused: bool) -> Optimizer:
    """Clips the norm of all gradients at 1 by itself, before the step and in addition to `clip_grad`."""
    return Lamb(groups, betas=s.betas, eps=s.eps or 1e-6)


def _lars(groups: Groups, s: Section, module: nn.Module, fused: bool) -> Optimizer:
    nesterov = s.use_nesterov and s.momentum > 0
    options = {"trust": s.lars_trust, "exclude": s.lars_exclude, "clip_lr": s.lars_clip_lr}
    return Lars(groups, momentum=s.momentum, nesterov=nesterov, **options)


def _muon(groups: Groups, s: Section, module: nn.Module, fused: bool) -> Optimizer:
    return MuonWithAdamW(groups, module, momentum=s.momentum, betas=s.betas, eps=s.eps or 1e-8)


OPTIMIZERS: dict[str, Callable[[Groups, Section, nn.Module, bool], Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "nadam": _nadam,
    "sgd": _sgd,
    "momentum": _sgd,
    "nesterov": _nesterov,
    "rmsprop": _rmsprop,
    "adagrad": _adagrad,
    "lamb": _lamb,
    "lars": _lars,
    "muon": _muon,
}


def build_optimizer(section: Section, groups: Groups, device: torch.device, module: nn.Module) -> Optimizer:
    """The optimizer of the recipe; the loop sets its learning rate before each step.

    Args:
        groups: from `param_groups`.
        module: the task, or a network, that owns the parameters.
    """
    return OPTIMIZERS[section.opt](groups, section, module, device.type in FUSED_DEVICES)


def drop_step_if(optimizer: Optimizer, bad: Tensor) -> None:
    """Let the next step change neither weights nor state where `bad` () is true, without reading it on the host.

    This is how torch's loss scaler talks to fused kernels.
    """
    vars(optimizer).update(grad_scale=None, found_inf=bad.float())
