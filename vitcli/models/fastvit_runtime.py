"""FastViT as runtimes run it fastest: the same function, in layers that they have quick kernels for.

A convolution with one input and two outputs per group (where FastViT halves the map, and before its head) is no
depthwise convolution to oneDNN, and takes the slow path of grouped ones: 28 % of the time of T8 in OpenVINO (bf16, one
image, one thread). As two depthwise convolutions side by side they take 2 %. The outputs come in another order then,
which the next layer's weights follow.
"""

import torch
from torch import Tensor, nn

from vitcli.layers.mobileone import FusedConv, SqueezeExcite
from vitcli.models.fastvit import FastViT, PatchEmbed


class DepthwiseConvs(nn.Module):
    """Depthwise convolutions of the same map, one after the other: (B, C, H, W) -> (B, m * C, H/stride, W/stride)."""

    def __init__(self, grouped: nn.Conv2d) -> None:
        super().__init__()
        per_group = grouped.out_channels // grouped.groups
        self.convs = nn.ModuleList(_part(grouped, first, per_group) for first in range(per_group))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(x) for conv in self.convs], dim=1)


@torch.no_grad()
def split_grouped(model: FastViT) -> None:
    """Rewrite a fully folded `model` in place; its state dict is no longer anybody's format."""
    for embed in [module for module in model.modules() if isinstance(module, PatchEmbed)]:
        depthwise, pointwise = embed.proj
        order = _split(depthwise)
        if order is not None:
            _permute_inputs(_fused(pointwise).reparam_conv, order)
    order = _split(model.final_conv)
    if order is not None:
        gate = _fused(model.final_conv).se
        assert isinstance(gate, SqueezeExcite)
        _permute_inputs(gate.fc1, order)
        _permute_outputs(gate.fc2, order)
        if isinstance(model.head.fc, nn.Linear):
            _permute_inputs(model.head.fc, order)


def _split(block: nn.Module) -> Tensor | None:
    """Put DepthwiseConvs in the place of the block's convolution; the order of its outputs, None: nothing to split."""
    conv = _fused(block).reparam_conv
    if not 1 < conv.groups < conv.out_channels:
        return None
    per_group = conv.out_channels // conv.groups
    block.reparam_conv = DepthwiseConvs(conv)
    return torch.cat([torch.arange(first, conv.out_channels, per_group) for first in range(per_group)])


def _fused(block: nn.Module) -> FusedConv:
    assert isinstance(block, FusedConv)
    return block


def _part(grouped: nn.Conv2d, first: int, per_group: int) -> nn.Conv2d:
    """The depthwise convolution that makes the outputs first, first + per_group, ..."""
    part = nn.Conv2d(
        grouped.in_channels,
        grouped.groups,
        (grouped.kernel_size[0], grouped.kernel_size[1]),
        (grouped.stride[0], grouped.stride[1]),
        (int(grouped.padding[0]), int(grouped.padding[1])),
        groups=grouped.groups,
    )
    assert grouped.bias is not None
    part.weight = nn.Parameter(grouped.weight[first::per_group].clone())
    part.bias = nn.Parameter(grouped.bias[first::per_group].clone())
    return part


def _permute_inputs(layer: nn.Module, order: Tensor) -> None:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    layer.weight = nn.Parameter(layer.weight[:, order].clone())


def _permute_outputs(layer: nn.Conv2d, order: Tensor) -> None:
    assert layer.bias is not None
    layer.weight, layer.bias = nn.Parameter(layer.weight[order].clone()), nn.Parameter(layer.bias[order].clone())
