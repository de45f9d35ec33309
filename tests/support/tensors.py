"""Weights far from their first values, and comparisons to the last bit."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """`model` in eval mode with every parameter and statistic drawn anew: no zeros, no ones."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, std: float) -> None:
        tensor.copy_(std * torch.randn(tensor.shape, generator=generator))

    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_kernel = name == "weight" and isinstance(module, nn.Linear | nn.Conv2d)
            normal(parameter, 0.7 * (parameter.numel() / len(parameter)) ** -0.5 if is_kernel else 0.2)
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            module.weight += 1
        if isinstance(module, nn.BatchNorm2d):
            normal(module.running_mean, 0.2)
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return model.eval()


def same(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """The same names, and the same values to the last bit."""
    return tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)
