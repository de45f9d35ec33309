"""LAMB against timm's, step by step, and what the loop relies on beyond that."""

import copy

import pytest
import timm.optim
import torch
from torch import nn

from vitcli.optim.optimizers import build_optimizer
from vitcli.optim.param_groups import param_groups
from vitcli.recipe.schema import Optimizer as Section


def build(net: nn.Module) -> torch.optim.Optimizer:
    groups = param_groups(net, weight_decay=0.05, weight_decay_filter="auto")
    return build_optimizer(Section(opt="lamb", betas=(0.9, 0.95)), groups, torch.device("cpu"))


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e3])
def test_equals_timms(size: float):
    """With gradients below and above the norm of 1 to which they are clipped, and a tensor of zeros."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3))
    nn.init.zeros_(net[3].weight)
    twin = copy.deepcopy(net)
    ours, theirs = (
        build(net),
        timm.optim.create_optimizer_v2(twin, "lamb", lr=0.0, weight_decay=0.05, betas=(0.9, 0.95)),
    )
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


def test_a_dropped_step_changes_nothing():
    """Gradients of NaN with `found_inf` set, first of all and later on: neither weights nor state move, nor do they
    count as a step."""
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    twin = copy.deepcopy(net)
    ours, steady = build(net), build(twin)
    for bad in (True, False, True, False):
        for model, optimizer in ((net, ours), (twin, steady)):
            for p in model.parameters():
                p.grad = torch.full_like(p, float("nan") if bad else 0.5)
            optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(float(bad))
            if not (bad and optimizer is steady):
                optimizer.step()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
        assert ours.state[p]["step"] == 2
        assert torch.equal(ours.state[p]["exp_avg"], steady.state[q]["exp_avg"])
        assert torch.equal(ours.state[p]["exp_avg_sq"], steady.state[q]["exp_avg_sq"])
