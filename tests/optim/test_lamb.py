"""LAMB against timm's, step by step."""

import copy

import pytest
import timm.optim
import torch
from torch import nn

from vitcli.optim.optimizers import build_optimizer
from vitcli.optim.param_groups import param_groups
from vitcli.recipe.schema import Optimizer as Section


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e3])
def test_equals_timms(size: float):
    """Gradients below and above the norm of 1 to which they are clipped, and a tensor of zeros."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3))
    nn.init.zeros_(net[3].weight)
    twin = copy.deepcopy(net)
    groups = param_groups(net, weight_decay=0.05, weight_decay_filter="auto")
    ours = build_optimizer(Section(opt="lamb", betas=(0.9, 0.95)), groups, torch.device("cpu"), net)
    theirs = timm.optim.create_optimizer_v2(twin, "lamb", lr=0.0, weight_decay=0.05, betas=(0.9, 0.95))
    for lr in (1e-3, 5e-3, 2e-2, 1e-2, 5e-3, 1e-3):
        x = torch.randn(8, 6)
        for model, optimizer in ((net, ours), (twin, theirs)):
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.zero_grad()
            ((model(x) - 1).square().mean() * size).backward()
            optimizer.step()
        for a, b in zip(net.parameters(), twin.parameters(), strict=True):
            assert (a - b).abs().max() <= 1e-6
