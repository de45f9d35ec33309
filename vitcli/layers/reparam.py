"""Turn a trained network into an equal one with fewer operations, by folding linear parts into convolutions.

A module takes part by defining one or both of these methods, which are called on a copy in eval mode:

- `reparameterized()` returns an equal module with one convolution, which replaces it; such a module also has
  `kernel_and_bias()`, the weights of that convolution as a differentiable function of its own weights;
- `fold_in_place()` folds what remains inside the module; it runs after its children, with `fold="full"` only.

A subclass that overrides `forward` may compute something else, so it takes part only if it defines these methods as
well. The inverse is in `unfuse`.

A convolution followed by BatchNorm (weight g, bias b, running mean m, running variance v) is the convolution with the
kernel s*K and the bias b - s*m, where s = g / sqrt(v + eps) (RepVGG, arXiv 2101.03697, eq. 3).
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal, TypeGuard, TypeVar, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.errors import UsageError
from vitcli.layers.regularize import LayerScale

Fold = Literal["standard", "full"]
Norm = nn.modules.batchnorm._BatchNorm  # BatchNorm2d, SyncBatchNorm
Model = TypeVar("Model", bound=nn.Module)
Kind = TypeVar("Kind", bound=nn.Module)


@torch.no_grad()
def reparameterize(model: Model, *, fold: Fold = "standard") -> Model:
    """A new model in eval mode that computes what `model.eval()` computes; `model` itself is not changed.

    Args:
        model: in training or fused form; a second call changes nothing.
        fold: "standard" folds parallel branches and skips, the form in which Apple and timm publish fused weights.
            "full" also folds each BatchNorm and layer scale next to a convolution or projection of FastViT, and in
            the blocks of a ViT the layer scales and the weights and biases of LayerNorms.

    Raises:
        UsageError: another `fold`.

    Sums are computed in float32 or better, and so is the result: fold first, then cast to bfloat16.
    """
    if fold not in get_args(Fold):
        raise UsageError(f"fold is {fold!r}", help="use 'standard' or 'full'")
    fused = deepcopy(model).eval()
    if any(p.is_floating_point() and p.itemsize < 4 for p in fused.parameters()):
        fused.float()
    fused = _replace_branches(fused)
    if fold == "full":
        _fold_rest(fused)
    return cast(Model, fused)


def _replace_branches(module: nn.Module) -> nn.Module:
    if reparameterized := _method(module, "reparameterized"):
        return reparameterized()
    for name, child in module.named_children():
        setattr(module, name, _replace_branches(child))
    return module


def _fold_rest(module: nn.Module) -> None:
    for child in module.children():
        _fold_rest(child)
    if fold_in_place := _method(module, "fold_in_place"):
        fold_in_place()


def _method(module: nn.Module, name: str) -> Callable[[], Any] | None:
    """The method, if it belongs to the `forward` that `module` has, not to one that a subclass overrides."""
    for class_ in type(module).__mro__:
        if name in vars(class_):
            return getattr(module, name)
        if "forward" in vars(class_):
            return None
    return None


def norm_scale_and_shift(norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of the map x -> scale * x + shift that `norm` computes in eval mode."""
    assert isinstance(norm, Norm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - scale * norm.running_mean


def set_scale_and_shift(norm: nn.Module | None, scale: Tensor | float, shift: Tensor | float) -> None:
    """Make `norm` compute x -> scale * x + shift in eval mode, with its present running statistics."""
    assert isinstance(norm, Norm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.weight.copy_(scale * torch.sqrt(norm.running_var + norm.eps))
    norm.bias.copy_(shift + scale * norm.running_mean)


def fold_norm(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Kernel (C_out, C_in/groups, k, k) and bias (C_out,) of the convolution that equals norm(conv(x))."""
    scale, shift = norm_scale_and_shift(norm)
    bias = shift if conv.bias is None else shift + scale * conv.bias
    return conv.weight * scale.view(-1, 1, 1, 1), bias


def fold_layer_norm(norm: nn.Module, layer: nn.Module) -> nn.Module:
    """Fold the weight and bias of `norm` into the linear `layer` after it; returns the remaining normalization.

    Returns `norm` and folds nothing unless both are plain modules without hooks.
    """
    if not (is_plain(norm, nn.LayerNorm) and is_plain(layer, nn.Linear, nn.Conv2d)) or not norm.elementwise_affine:
        return norm
    weight = layer.weight.flatten(1)
    if norm.bias is not None:
        bias = weight @ norm.bias
        layer.bias = nn.Parameter(bias if layer.bias is None else layer.bias + bias)
    layer.weight = nn.Parameter((weight * norm.weight).view_as(layer.weight))
    return nn.LayerNorm(norm.weight.shape, eps=norm.eps, elementwise_affine=False).eval()


def fold_scale(scale: nn.Module, layer: nn.Module) -> nn.Module:
    """Fold the layer scale `scale` into the linear `layer` before it; returns an identity.

    Returns `scale` and folds nothing unless both are plain modules without hooks.
    """
    if not (is_plain(scale, LayerScale) and is_plain(layer, nn.Linear, nn.Conv2d)):
        return scale
    gamma = scale.gamma.flatten()
    layer.weight = nn.Parameter(layer.weight * gamma.view(-1, *(1,) * (layer.weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias * gamma)
    return nn.Identity()


def is_plain(module: nn.Module, *types: type[Kind]) -> TypeGuard[Kind]:
    """Whether `module` is exactly one of `types`, not a subclass or parametrized, and has no hooks inside."""
    return type(module) in types and not has_hooks(module)


def has_hooks(module: nn.Module) -> bool:
    return any(inner._forward_hooks or inner._forward_pre_hooks for inner in module.modules())


def identity_kernel(conv_channels: int, groups: int, kernel_size: int, *, like: Tensor) -> Tensor:
    """The kernel (C, C/groups, k, k) of the convolution that returns its input."""
    per_group = conv_channels // groups
    kernel = like.new_zeros(conv_channels, per_group, kernel_size, kernel_size)
    channel = torch.arange(conv_channels, device=like.device)
    kernel[channel, channel % per_group, kernel_size // 2, kernel_size // 2] = 1
    return kernel


def pad_kernel(kernel: Tensor, kernel_size: int) -> Tensor:
    """`kernel` with zeros around it, up to a side of `kernel_size`; both sides are odd."""
    return F.pad(kernel, [(kernel_size - kernel.shape[-1]) // 2] * 4)


def fused_conv(like: nn.Conv2d, kernel: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution with the strides and groups of `like`, the given weights and same-size padding."""
    stride, padding = (like.stride[0], like.stride[1]), kernel.shape[-1] // 2
    sizes = like.in_channels, len(kernel), kernel.shape[-1]
    conv = nn.Conv2d(*sizes, stride=stride, padding=padding, groups=like.groups, device="meta")
    conv.weight, conv.bias = nn.Parameter(kernel.clone()), nn.Parameter(bias.clone())
    return conv.eval()
