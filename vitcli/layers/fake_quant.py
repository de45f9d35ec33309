"""Quantization-aware training: the network computes in training as its int8 deployment will, with float32 values.

In the deployed, fully folded network each convolution and linear layer multiplies 8-bit integers. These layers are
simulated, not the branches they are trained as: a block is folded in each forward pass, its kernel and its input are
rounded to 8 bits, and it is one convolution (Jacob et al. 2018, arXiv 1712.05877, section 3). The gradient ignores the
rounding and goes through the folding to the weights of all branches.

- Weights: 8 bits per output channel, symmetric, scaled by the largest weight. A layer scale or norm after a layer only
  multiplies these channels, so it does not have to be folded.
- Inputs: 8 bits per tensor, with a range that contains 0, because padding must be exact. The range goes from the mean
  of the images' minima to the mean of their maxima, as NNCF does by default when it quantizes for OpenVINO (3.4): more
  stable than the extremes of a batch, cheaper than percentiles, and, unlike a running range, a function of the batch
  alone, which exact resuming needs.
- BatchNorm uses its running statistics, which do not change; its weights and biases learn.

Softmax, attention between tokens, activations, LayerNorm and residuals stay in float, and so do depthwise convolutions
and squeeze-excite: see `stays_float`.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.errors import UsageError
from vitcli.layers.mobileone import ConvNorm, MobileOneBlock, SqueezeExcite
from vitcli.layers.reparam import norm_scale_and_shift

WEIGHT_LEVEL = 127  # weights are -127 .. 127 times their scale
INPUT_LEVEL = 255  # inputs are 0 .. 255, minus the zero point, times their scale
SMALLEST = torch.finfo(torch.float32).tiny  # scale of a tensor of zeros


def simulate_int8(model: nn.Module, *, keep_float: tuple[str, ...] = ()) -> str:
    """Make `model`, in training or folded form, compute like its int8 deployment; returns a line for the log.

    Parameters, buffers and their names stay the same. Fold before, if at all. Autocast must be off: bfloat16 has a
    precision of 8 bits itself and would blur the simulated steps.

    Args:
        keep_float: names of layers that are not quantized, and neither are blocks that contain one of them.

    Raises:
        UsageError: there is nothing to quantize.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = FixedNorm
    layers = list(_deployed(model, ""))
    skipped = {name for name, _ in layers if any(f"{kept}.".startswith(f"{name}.") for kept in keep_float)}
    chosen = [module for name, module in layers if name not in skipped and not stays_float(module)]
    if not chosen:
        reason = "the model has no convolution or linear layer between its first and its last"
        raise UsageError(f"there is nothing to quantize: {reason}", help="remove quantize")
    for module in chosen:
        module.__class__ = SIMULATED[type(module)]
    for block in model.modules():
        if hasattr(block, "norms_and_linears"):  # full folding moves these norms into the layers after them
            for norm, linear in block.norms_and_linears():  # type: ignore[operator]
                _move_norm(norm, linear)
    return f"int8     simulated in {len(chosen)} layers, {len(layers) - len(chosen)} stay in float"


def stays_float(module: nn.Module) -> bool:
    """Whether a layer, or a block that becomes one, is a depthwise (or otherwise grouped) convolution.

    These have few products for much data, so CPUs do not run them faster in int8, and they lose the most accuracy:
    FastViT-T8 on CIFAR-10 with OpenVINO loses 0.32 points of top-1 with them in int8, 0.10 without.
    """
    block = module.main if isinstance(module, MobileOneBlock) else module
    conv = block.conv if isinstance(block, ConvNorm) else block
    return isinstance(conv, nn.Conv2d) and conv.groups > 1


def _deployed(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of each layer of the deployed network; a block that becomes one convolution is one layer."""
    if isinstance(module, SqueezeExcite):  # saves no time, and its error multiplies a whole channel
        return
    only_conv_is_left = isinstance(module, ConvNorm) and isinstance(module.bn, nn.Identity)  # by full folding
    if type(module) in SIMULATED and not only_conv_is_left:
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _deployed(child, f"{name}.{child_name}".lstrip("."))


def _move_norm(norm: nn.Module, linear: nn.Module) -> None:
    """Let `linear` do what `norm` did, and quantize what remains of it."""
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
    """A batch (B, ...) rounded to 8 bits; values outside the range are clipped and have no gradient."""
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
    """A linear layer with the norm before it folded into it."""

    norms: tuple["MovedBatchNorm | MovedLayerNorm"]  # a tuple, so that the norm is no submodule

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
    """BatchNorm that uses its running statistics and keeps them unchanged, in training mode too."""

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class MovedBatchNorm(FixedNorm):
    """BatchNorm that is folded into the layer after it."""

    scale_and_shift = norm_scale_and_shift

    def forward(self, input: Tensor) -> Tensor:
        return input


class MovedLayerNorm(nn.LayerNorm):
    """LayerNorm whose weight and bias are folded into the layer after it."""

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, eps=self.eps)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        return self.weight, torch.zeros_like(self.weight) if self.bias is None else self.bias


#: layers, and blocks that become one layer, and the simulation of each
SIMULATED: dict[type[nn.Module], type[nn.Module]] = {
    MobileOneBlock: Int8MobileOneBlock,
    ConvNorm: Int8ConvNorm,
    nn.Conv2d: Int8Conv2d,
    nn.Linear: Int8Linear,
}
#: norms that can be folded into the layer after them
MOVED: dict[type[nn.Module], type[nn.Module]] = {FixedNorm: MovedBatchNorm, nn.LayerNorm: MovedLayerNorm}
