"""Turn a fused network back into an equal one that can be trained: the inverse of `reparam`.

A module takes part by the inverse of what it has for `reparam`:

- `set_kernel_and_bias(kernel, bias)` is the inverse of `kernel_and_bias()`: the main branch becomes that convolution,
  the parallel branches add nothing at first but have gradients, so they can learn;
- `unfold_in_place(folded)` is the inverse of `fold_in_place()`: what `folded` no longer has becomes the identity, or
  what the folded layers show of it.

Folding loses information, so these are not the weights that were trained, only those of an equal network. The running
statistics of a folded BatchNorm are lost too: `settle_norms` measures them again. Without that the first training step,
which normalizes by the batch, would destroy the network.
"""

from collections.abc import Iterable
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from vitcli.errors import WeightsError
from vitcli.layers.mobileone import FusedConv
from vitcli.layers.reparam import Norm, norm_scale_and_shift, set_scale_and_shift

Model = TypeVar("Model", bound=nn.Module)
#: largest distance of a bias from the effect of an input shift, relative to its length; bfloat16 rounding costs 0.4 %
_MAX_RESIDUAL = 0.01


@torch.no_grad()
def unfuse(fused: nn.Module, *, into: Model) -> Model:
    """A new model in training form that computes in eval mode what `fused` does; neither argument is changed.

    Args:
        fused: the result of `reparameterize`, with either fold, or a model with such weights.
        into: a model in training form of the same sizes; its weights remain only where they add nothing.

    The statistics of the norms must still be measured, see `settle_norms`.

    Raises:
        WeightsError: the weights are not the result of folding.
    """
    model = deepcopy(into)
    for module in model.modules():
        if isinstance(module, Norm | nn.LayerNorm):
            module.reset_parameters()  # to the identity
    _take(model, fused)
    return model


def _take(module: nn.Module, fused: nn.Module) -> None:
    """Copy what both have, then let `module` replace what `fused` has lost."""
    theirs = dict(fused.named_parameters(recurse=False)) | dict(fused.named_buffers(recurse=False))
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if name in theirs:
            tensor.copy_(theirs[name])
    theirs = dict(fused.named_children())
    for name, child in module.named_children():
        if name in theirs:
            _take(child, theirs[name])
    set_kernel_and_bias = getattr(module, "set_kernel_and_bias", None)
    unfold_in_place = getattr(module, "unfold_in_place", None)
    if set_kernel_and_bias and isinstance(fused, FusedConv):
        set_kernel_and_bias(fused.reparam_conv.weight, fused.reparam_conv.bias)
    elif unfold_in_place:
        unfold_in_place(fused)


def input_shift(linear: nn.Linear) -> Tensor:
    """The vector s (D_in,) with W s = bias: the bias of `linear` as a shift of its input.

    Raises:
        WeightsError: there is no such vector.
    """
    assert linear.bias is not None
    weight, bias = linear.weight.double().cpu(), linear.bias.double().cpu()
    # least squares by gelsd: the shortest of several shifts, even if columns of the weight are zero
    shift = torch.linalg.lstsq(weight, bias[:, None], driver="gelsd").solution[:, 0]
    residual = torch.linalg.vector_norm(weight @ shift - bias)
    if residual > _MAX_RESIDUAL * torch.linalg.vector_norm(bias):
        raise WeightsError(
            "the bias of queries, keys and values is not the result of folding a norm",
            help="only files that were folded and not trained afterwards can be unfused",
        )
    return shift.to(linear.weight)


@torch.no_grad()
def settle_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give each BatchNorm without statistics those of `batches`; the output of the model in eval mode stays the same.

    In training mode the model then computes nearly the same as in eval mode if the data resembles `batches`.

    Args:
        model: is changed; it stays in its mode.
        batches: images (B, C, H, W), normalized, at least one batch; used once.
    """
    moments: dict[nn.Module, _Moments] = {norm: _Moments() for norm in new_norms(model)}
    hooks = [norm.register_forward_pre_hook(lambda norm, inputs: moments[norm].add(inputs[0])) for norm in moments]
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    for norm, measured in moments.items():
        assert isinstance(norm, Norm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale, shift = norm_scale_and_shift(norm)
        norm.running_mean.copy_(measured.mean)
        norm.running_var.copy_(measured.squares / measured.count)
        set_scale_and_shift(norm, scale, shift)


def new_norms(model: nn.Module) -> list[Norm]:
    """Each BatchNorm without statistics: its running mean and variance are still 0 and 1."""
    norms = [module for module in model.modules() if isinstance(module, Norm)]
    return [norm for norm in norms if _equals(norm.running_mean, 0) and _equals(norm.running_var, 1)]


def _equals(tensor: Tensor | None, number: int) -> bool:
    return tensor is not None and bool((tensor == number).all())


class _Moments:
    """Mean (C,) and sum of squared deviations of all maps (B, C, H, W) so far, merged pairwise (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        count = x.numel() // x.shape[1]
        var, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
        step = mean - self.mean
        total = self.count + count
        self.squares = self.squares + var * count + step**2 * (self.count * count / total)
        self.mean, self.count = self.mean + step * (count / total), total
