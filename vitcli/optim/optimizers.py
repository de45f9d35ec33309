"""The optimizers a recipe can name: torch's own, in their fastest form for the device."""

from collections.abc import Callable

import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from vitcli.optim.lamb import Lamb
from vitcli.optim.muon import MuonWithAdamW
from vitcli.recipe.schema import Optimizer as Section

Groups = list[dict]


def _adamw(groups: Groups, s: Section, fused: bool) -> Optimizer:
    return AdamW(groups, betas=s.betas, eps=s.eps or 1e-8, fused=fused)


def _adam(groups: Groups, s: Section, fused: bool) -> Optimizer:
    """Decay is added to the gradient (L2), unlike AdamW's."""
    return Adam(groups, betas=s.betas, eps=s.eps or 1e-8, fused=fused)


def _nadam(groups: Groups, s: Section, fused: bool) -> Optimizer:
    return NAdam(groups, betas=s.betas, eps=s.eps or 1e-8)


def _sgd(groups: Groups, s: Section, fused: bool) -> Optimizer:
    return _with_momentum(SGD(groups, momentum=s.momentum, nesterov=s.use_nesterov and s.momentum > 0, fused=fused))


def _nesterov(groups: Groups, s: Section, fused: bool) -> Optimizer:
    return _with_momentum(SGD(groups, momentum=s.momentum or 0.9, nesterov=True, fused=fused))


def _with_momentum(optimizer: SGD) -> SGD:
    """Momentum starts at zero, which gives the same first step as torch's way to start it with the gradient.

    torch's fused kernel leaves a new buffer uninitialized when a loss scaler lets it drop the first step.
    """
    for group in optimizer.param_groups:
        for p in group["params"] if group["momentum"] else ():
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def _rmsprop(groups: Groups, s: Section, fused: bool) -> Optimizer:
    return RMSprop(groups, alpha=0.9, eps=s.eps or 1e-8, momentum=s.momentum)


def _adagrad(groups: Groups, s: Section, fused: bool) -> Optimizer:
    return Adagrad(groups, eps=s.eps or 1e-10, fused=fused and groups[0]["params"][0].device.type == "cpu")


def _lamb(groups: Groups, s: Section, fused: bool) -> Optimizer:
    """Clips the norm of all gradients at 1 by itself, before the step and whatever `clip_grad` says."""
    return Lamb(groups, betas=s.betas, eps=s.eps or 1e-6)


def _muon(groups: Groups, s: Section, fused: bool) -> Optimizer:
    return MuonWithAdamW(groups, momentum=s.momentum, betas=s.betas, eps=s.eps or 1e-8, fused=fused)


OPTIMIZERS: dict[str, Callable[[Groups, Section, bool], Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "nadam": _nadam,
    "sgd": _sgd,
    "momentum": _sgd,
    "nesterov": _nesterov,
    "rmsprop": _rmsprop,
    "adagrad": _adagrad,
    "lamb": _lamb,
    "muon": _muon,
}


def build_optimizer(section: Section, groups: Groups, device: torch.device) -> Optimizer:
    """The optimizer of the recipe; its learning rate is set before each step by the loop."""
    fused = device.type in ("cpu", "cuda")
    return OPTIMIZERS[section.opt](groups, section, fused)


def skips_on_device(optimizer: Optimizer) -> bool:
    """Whether a step can be dropped by a flag on the device (torch's fused kernels), without asking the host."""
    return getattr(optimizer, "_step_supports_amp_scaling", False)


def drop_step_if(optimizer: Optimizer, bad: torch.Tensor) -> None:
    """Let the next step do nothing where `bad` () is true; the way torch's own loss scaler talks to fused kernels."""
    vars(optimizer).update(grad_scale=None, found_inf=bad.float())
