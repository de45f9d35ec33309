"""Let a network learn to live with int8: it computes in training as it will where it is deployed, with float32 numbers.

In the deployed, fully folded network each convolution and linear layer multiplies 8-bit integers. Simulated are these
layers, not the branches they are trained as: a block is folded in each forward pass, its kernel and its input are
rounded to 8 bits, and it is one convolution (Jacob et al. 2018, arXiv 1712.05877, section 3). The gradient goes through
the rounding as if it were not there, and through the folding to the weights of all branches.

- Weights: 8 bits for each output channel, symmetric, from its largest weight. A layer scale or norm behind a layer
  only multiplies these channels, so that it may stay where it is.
- Inputs: 8 bits for the whole tensor, of a range with 0 in it, since padding must be exact. It goes from the mean of
  the images' smallest values to that of their largest ones, which is what NNCF takes when it quantizes for OpenVINO
  (3.4, its default): steadier than the extremes of a batch, cheaper than percentiles, and, unlike a running range, a
  function of the batch alone, as exact resuming needs.
- BatchNorm acts by its running statistics, which stay as they are; its weights and biases learn.

Softmax, attention between tokens, activations, LayerNorm and residuals stay in float, and so do depthwise convolutions
and squeeze-excite: see `stays_float`.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.errors import UsageError
from vitcli.layers.mobileone import ConvNorm, MobileOneBlock, SqueezeExcite
from vitcli.layers.reparam import norm_scale_and_shift

WEIGHT_LEVEL = 127  # weights are -127 .. 127 times their scale
INPUT_LEVEL = 255  # inputs are 0 .. 255, less the zero point, times their scale
SMALLEST = torch.finfo(torch.float32).tiny  # scale of what is all zeros


@runtime_checkable
class NormsAhead(Protocol):
    """A block in which full folding puts norms, or what LayerNorm does behind normalizing, into what follows them."""

    def norms_and_linears(self) -> Iterable[tuple[nn.Module, nn.Module]]: ...


def simulate_int8(model: nn.Module, *, keep_float: tuple[str, ...] = ()) -> str:
    """Make `model`, in training or folded form, compute as its int8 deployment; returns the sentence that says so.

    Parameters, buffers and their names stay the same. What is to be folded must be folded before. Autocast must be off:
    bfloat16 has 8 bits itself, so that it would blur the steps that are simulated.

    Args:
        keep_float: names of layers that are not quantized; a block that one of them is folded into is not either.

    Raises:
        UsageError: there is nothing to quantize.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = FixedNorm
    layers = list(_deployed(model, ""))
    spared = {name for name, _ in layers if any(f"{kept}.".startswith(f"{name}.") for kept in keep_float)}
    chosen = [module for name, module in layers if name not in spared and not stays_float(module)]
    if not chosen:
        raise UsageError(
            "there is nothing to quantize: the model has no convolution or linear layer between its first and its last",
            help="leave quantize out",
        )
    for module in chosen:
        module.__class__ = SIMULATED[type(module)]
    for block in model.modules():
        if isinstance(block, NormsAhead):
            for norm, linear in block.norms_and_linears():
                _move_norm(norm, linear)
    return f"int8     simulated in {len(chosen)} layers, {len(layers) - len(chosen)} stay in float"


def stays_float(module: nn.Module) -> bool:
    """Whether a layer, or a block that becomes one, is a depthwise (or otherwise grouped) convolution.

    These have few products and much data, so that CPUs run them in int8 no faster, and they lose most accuracy: on
    FastViT-T8, CIFAR-10 and OpenVINO, 0.32 points of top-1 with them in int8, 0.10 without.
    """
    block = module.main if isinstance(module, MobileOneBlock) else module
    conv = block.conv if isinstance(block, ConvNorm) else block
    return isinstance(conv, nn.Conv2d) and conv.groups > 1


def _deployed(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of each layer of the deployed network; a block that becomes one convolution is one."""
    if isinstance(module, SqueezeExcite):  # nothing to save, and its error multiplies a whole channel
        return
    if type(module) in SIMULATED and not _is_folded(module):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _deployed(child, f"{name}.{child_name}".lstrip("."))


def _is_folded(module: nn.Module) -> bool:
    """Whether full folding has left a convolution of `module` and nothing else."""
    return isinstance(module, ConvNorm) and isinstance(module.bn, nn.Identity)


def _move_norm(norm: nn.Module, linear: nn.Module) -> None:
    """`linear` does what `norm` did, and quantizes what is left of it."""
    if type(norm) in MOVED and norm.weight is not None and type(linear) is Int8Linear:
        norm.__class__ = MOVED[type(norm)]
        linear.__class__ = Int8LinearOfNorm
        vars(linear)["norms"] = (norm,)


def quantized_weight(weight: Tensor) -> Tensor:
    """A weight (C_out, ...) rounded to 8 bits."""
    scale = (weight.detach().abs().flatten(1).amax(1) / WEIGHT_LEVEL).clamp_min(SMALLEST)
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -WEIGHT_LEVEL, WEIGHT_LEVEL)


def quantized_input(x: Tensor) -> Tensor:
    """A batch (B, ...) rounded to 8 bits; what lies outside the range is clipped to it and has no gradient."""
    of_an_image = tuple(range(1, x.ndim))
    low = x.detach().amin(of_an_image).mean().clamp_max(0)
    high = x.detach().amax(of_an_image).mean().clamp_min(0)
    scale = ((high - low) / INPUT_LEVEL).clamp_min(SMALLEST)
    zero_point = (-low / scale).round().to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, INPUT_LEVEL)


def int8_conv2d(x: Tensor, kernel: Tensor, bias: Tensor, *, like: nn.Conv2d) -> Tensor:
    """A same-size convolution with the strides and groups of `like`."""
    x, kernel = quantized_input(x), quantized_weight(kernel)
    return F.conv2d(x, kernel, bias, like.stride, kernel.shape[-1] // 2, groups=like.groups)


class Int8Conv2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(quantized_input(input), quantized_weight(self.weight), self.bias)


class Int8Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(quantized_input(input), quantized_weight(self.weight), self.bias)


class Int8LinearOfNorm(Int8Linear):
    """A linear layer with the norm ahead of it folded into it."""

    norms: tuple["MovedBatchNorm | MovedLayerNorm"]  # a tuple, so that the norm is not a part of this module

    def forward(self, input: Tensor) -> Tensor:
        scale, shift = self.norms[0].scale_and_shift()
        bias = self.weight @ shift if self.bias is None else self.weight @ shift + self.bias
        return F.linear(quantized_input(input), quantized_weight(self.weight * scale), bias)


class Int8ConvNorm(ConvNorm):
    def forward(self, x: Tensor) -> Tensor:
        return int8_conv2d(x, *self.kernel_and_bias(), like=self.conv)


class Int8MobileOneBlock(MobileOneBlock):
    def branches(self, x: Tensor) -> Tensor:
        return int8_conv2d(x, *self.kernel_and_bias(), like=self.main.conv)


class FixedNorm(nn.BatchNorm2d):
    """BatchNorm that uses and keeps its running statistics in training mode too."""

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class MovedBatchNorm(FixedNorm):
    """BatchNorm that the layer behind it has taken over."""

    def forward(self, input: Tensor) -> Tensor:
        return input

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        return norm_scale_and_shift(self)


class MovedLayerNorm(nn.LayerNorm):
    """LayerNorm whose weight and bias the layer behind it has taken over."""

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, eps=self.eps)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        return self.weight, torch.zeros_like(self.weight) if self.bias is None else self.bias


#: layers, and blocks that become one layer, each with its simulation
SIMULATED: dict[type[nn.Module], type[nn.Module]] = {
    MobileOneBlock: Int8MobileOneBlock,
    ConvNorm: Int8ConvNorm,
    nn.Conv2d: Int8Conv2d,
    nn.Linear: Int8Linear,
}
#: norms that the layer behind them can take over
MOVED: dict[type[nn.Module], type[nn.Module]] = {FixedNorm: MovedBatchNorm, nn.LayerNorm: MovedLayerNorm}
