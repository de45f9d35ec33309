"""Freezes part of a network: its parameters get no gradient, and its BatchNorm layers keep their statistics."""

import difflib
import re
from collections.abc import Sequence
from types import MethodType

from torch import nn

from vitcli.errors import UsageError

BatchNorm = nn.modules.batchnorm._BatchNorm


def freeze(model: nn.Module, what: str | Sequence[str]) -> str:
    """Freeze a part of `model`; returns a sentence that says how many parameters still train.

    Args:
        what: "backbone": all but the head. "all_but_attention": all but attention, learned positions and the head, to
            adapt to another resolution or task (Touvron et al. 2022, arXiv 2203.09795, section 3, and its code).
            Otherwise regexes: a parameter is frozen if one of them matches in its name.

    Raises:
        UsageError: a regex matches no name, there is no attention, or nothing is left to train.
    """
    frozen = _matching(model, what) if not isinstance(what, str) else _all_but(model, attention=what != "backbone")
    for name, p in model.named_parameters():
        p.requires_grad_(p.requires_grad and name not in frozen)
    if not any(p.requires_grad for p in model.parameters()):
        raise UsageError("`freeze` leaves nothing to train", help="freeze less: the classifier should train at least")
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.affine and not module.weight.requires_grad:
            module.eval()
            vars(module)["train"] = MethodType(_stay, module)  # deepcopy binds it to the copy
    total, trained = (sum(p.numel() for p in model.parameters() if p.requires_grad or all_) for all_ in (True, False))
    return f"freeze   {trained:,} of {total:,} parameters train"


def _all_but(model: nn.Module, *, attention: bool) -> set[str]:
    """Names of the parameters before the head; without those of attention and of learned positions, if `attention`."""
    trained = [f"{name.split('.')[0]}." for name in (*model.classifiers, "fine_tune")]  # type: ignore[misc]
    if attention:
        layers = [f"{name}." for name, module in model.named_modules() if hasattr(module, "qkv")]
        if not layers:
            raise UsageError("freeze: all_but_attention, but the model has no attention", help="use freeze: backbone")
        trained += [*layers, "pos_embed"]
    return {name for name, _ in model.named_parameters() if not name.startswith(tuple(trained))}


def _matching(model: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Names of the parameters that one of `patterns` matches."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            plain = re.sub(r"[^\w.]", "", pattern.replace("\\", ""))
            near = difflib.get_close_matches(plain, names, n=3, cutoff=0.0)
            raise UsageError(f"freeze: {pattern!r} matches no parameter name", help=f"nearest names: {', '.join(near)}")
    return {name for name in names if any(re.search(pattern, name) for pattern in patterns)}


def _stay(norm: BatchNorm, mode: bool = True) -> BatchNorm:
    """In place of `train`: the norm stays in eval mode when the model is put into training mode."""
    return norm
