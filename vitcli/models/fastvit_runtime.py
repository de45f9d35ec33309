"""Rewrites FastViT for runtimes: the same function, in layers for which they have fast kernels.

For oneDNN, a convolution with one input and two outputs per group (where FastViT halves the map, and before its head)
is not depthwise and takes the slow path for groups: 28 % of the time of T8 in OpenVINO (bf16, one image, one thread).
As two parallel depthwise convolutions it takes 2 %. Their outputs have another order, to which the weights of the next
layer are adapted.
"""

import torch
from torch import Tensor, nn

from vitcli.layers.mobileone import FusedConv, SqueezeExcite
from vitcli.models.fastvit import FastViT, PatchEmbed


class DepthwiseConvs(nn.Module):
    """Depthwise convolutions of the same map, concatenated: (B, C, H, W) -> (B, m * C, H/stride, W/stride)."""

    def __init__(self, grouped: nn.Conv2d) -> None:
        super().__init__()
        per_group = grouped.out_channels // grouped.groups
        self.convs = nn.ModuleList(_part(grouped, first, per_group) for first in range(per_group))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(x) for conv in self.convs], dim=1)


@torch.no_grad()
def split_grouped(model: FastViT) -> None:
    """Rewrite a fully folded `model` in place; its state dict then has a format of its own."""
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
    """Replace the block's convolution by DepthwiseConvs; returns the order of its outputs, None: nothing to split."""
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
    """The depthwise convolution that computes the outputs first, first + per_group, ..."""
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
