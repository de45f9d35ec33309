"""Turn a trained network into an equal one with fewer operations, by folding whatever is linear into convolutions.

A module takes part by having one or both of these methods, both called on a copy in eval mode:

- `reparameterized()` returns the module that does the same with one convolution and takes its place; such a module
  also has `kernel_and_bias()`, the weights of that convolution as a differentiable function of its own;
- `fold_in_place()` folds what is left inside the module; it runs after its children, for `fold="full"` only.

A convolution followed by BatchNorm (weight g, bias b, running mean m, running variance v) is the convolution with the
kernel s*K and the bias b - s*m, where s = g / sqrt(v + eps) (RepVGG, arXiv 2101.03697, eq. 3).
"""

from copy import deepcopy
from typing import Literal, Protocol, TypeVar, cast, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.errors import UsageError

Fold = Literal["standard", "full"]
Norm = nn.modules.batchnorm._BatchNorm  # BatchNorm2d, SyncBatchNorm
Model = TypeVar("Model", bound=nn.Module)


@runtime_checkable
class Reparameterizable(Protocol):
    def reparameterized(self) -> nn.Module: ...


@runtime_checkable
class Foldable(Protocol):
    def fold_in_place(self) -> None: ...


@torch.no_grad()
def reparameterize(model: Model, *, fold: Fold = "standard") -> Model:
    """A new model in eval mode that computes what `model.eval()` computes; `model` itself is not touched.

    Args:
        model: in training or fused form; a second call changes nothing.
        fold: "standard" folds parallel branches and skips, the form in which Apple and timm publish fused weights.
            "full" also folds each BatchNorm and layer scale that touches a convolution or a projection.

    The sums are done in float32 at least, and so is the result: fold first, cast to bfloat16 afterwards.
    """
    if fold not in get_args(Fold):
        raise UsageError(f"fold is {fold!r}", help="give 'standard' or 'full'")
    fused = deepcopy(model).eval()
    if any(p.is_floating_point() and p.itemsize < 4 for p in fused.parameters()):
        fused.float()
    fused = _replace_branches(fused)
    if fold == "full":
        _fold_rest(fused)
    return cast(Model, fused)


def _replace_branches(module: nn.Module) -> nn.Module:
    if isinstance(module, Reparameterizable):
        return module.reparameterized()
    for name, child in module.named_children():
        setattr(module, name, _replace_branches(child))
    return module


def _fold_rest(module: nn.Module) -> None:
    for child in module.children():
        _fold_rest(child)
    if isinstance(module, Foldable):
        module.fold_in_place()


def norm_scale_and_shift(norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """The two vectors (C,) of the map x -> scale * x + shift that `norm` is in eval mode."""
    assert isinstance(norm, Norm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - scale * norm.running_mean


def fold_norm(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Kernel (C_out, C_in/groups, k, k) and bias (C_out,) of the one convolution that equals norm(conv(x))."""
    scale, shift = norm_scale_and_shift(norm)
    bias = shift if conv.bias is None else shift + scale * conv.bias
    return conv.weight * scale.view(-1, 1, 1, 1), bias


def identity_kernel(conv_channels: int, groups: int, kernel_size: int, *, like: Tensor) -> Tensor:
    """The kernel (C, C/groups, k, k) of the convolution that returns its input."""
    per_group = conv_channels // groups
    kernel = like.new_zeros(conv_channels, per_group, kernel_size, kernel_size)
    channel = torch.arange(conv_channels, device=like.device)
    kernel[channel, channel % per_group, kernel_size // 2, kernel_size // 2] = 1
    return kernel


def pad_kernel(kernel: Tensor, kernel_size: int) -> Tensor:
    """`kernel` with zeros around it, so that its last two sides are `kernel_size`, an odd number as they are."""
    return F.pad(kernel, [(kernel_size - kernel.shape[-1]) // 2] * 4)


def fused_conv(like: nn.Conv2d, kernel: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution with the strides and groups of `like`, the given weights, and same-size padding."""
    conv = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        kernel.shape[-1],
        stride=(like.stride[0], like.stride[1]),
        padding=kernel.shape[-1] // 2,
        groups=like.groups,
        device="meta",
    )
    conv.weight = nn.Parameter(kernel.clone())
    assert bias is not None
    conv.bias = nn.Parameter(bias.clone())
    return conv.eval()
