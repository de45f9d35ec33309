"""Rewrites FastViT for runtimes: the same function, in layers for which they have fast kernels.

For oneDNN, a convolution with one input and two outputs per group (where FastViT halves the map, and before its head)
is not depthwise and takes the slow path for groups: 28 % of the time of T8 in OpenVINO (bf16, one image, one thread).
As two parallel depthwise convolutions it takes 2 %. Their outputs have another order, to which the weights of the next
layer are adapted.
"""

import torch
from torch import Tensor, nn

from vitcli.layers.mobileone import FusedConv, SqueezeExcite
from vitcli.layers.reparam import fused_conv
from vitcli.models.fastvit import FastViT, PatchEmbed


class DepthwiseConvs(nn.Module):
    """Depthwise convolutions of the same map, concatenated: (B, C, H, W) -> (B, m * C, H/stride, W/stride)."""

    def __init__(self, grouped: nn.Conv2d) -> None:
        super().__init__()
        per_group = grouped.out_channels // grouped.groups
        assert grouped.bias is not None
        parts = [(grouped.weight[first::per_group], grouped.bias[first::per_group]) for first in range(per_group)]
        self.convs = nn.ModuleList(fused_conv(grouped, weight, bias) for weight, bias in parts)

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
        assert gate.fc2.bias is not None
        _permute_inputs(gate.fc1, order)
        gate.fc2.weight = nn.Parameter(gate.fc2.weight[order].clone())
        gate.fc2.bias = nn.Parameter(gate.fc2.bias[order].clone())
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


def _permute_inputs(layer: nn.Module, order: Tensor) -> None:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    layer.weight = nn.Parameter(layer.weight[:, order].clone())
