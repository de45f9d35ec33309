"""LARS against numbers worked out by hand, a scalar version of both conventions, and timm's."""

import copy
import math

import pytest
import timm.optim
import torch
from torch import nn

from vitcli.optim.optimizers import build_optimizer
from vitcli.optim.param_groups import param_groups
from vitcli.recipe.schema import Optimizer as Section

CPU = torch.device("cpu")


def test_two_steps_by_hand():
    """p = (3, 4), g = (0.6, 0.8), decay 0.1, trust 0.001, momentum 0.9, lr 1, then 2.

    Step 1: ratio = 0.001 * 5 / (1 + 0.5) = 1/300, d = ratio * (0.9, 1.2) = (0.003, 0.004), p = (2.997, 3.996).
    Step 2: ratio = 0.001 * 4.995 / 1.4995 = 0.00333111, d = ratio * (0.8997, 1.1996) = (0.002997, 0.003996),
    buffer = 0.9 * (0.003, 0.004) + d = (0.005697, 0.007596), p = (2.997, 3.996) - 2 * buffer = (2.985606, 3.980808).
    """
    net = nn.Linear(2, 1, bias=False)
    net.weight.data = torch.tensor([[3.0, 4.0]])
    groups = [{"params": [net.weight], "names": ["weight"], "weight_decay": 0.1}]
    optimizer = build_optimizer(Section(opt="lars"), groups, CPU, net)
    for lr, expected in ((1.0, (2.997, 3.996)), (2.0, (2.985606, 3.980808))):
        optimizer.param_groups[0]["lr"] = lr
        net.weight.grad = torch.tensor([[0.6, 0.8]])
        optimizer.step()
        assert net.weight[0].tolist() == pytest.approx(expected, rel=1e-6)


def scalar_lars(p, g, buffer, *, lr, decay, scaled, momentum, nesterov, trust, clip_lr):
    """One step of one tensor as lists of floats, after lightly/utils/lars.py and solo/utils/lars.py; (p, buffer)."""
    p_norm, g_norm = math.sqrt(sum(v * v for v in p)), math.sqrt(sum(v * v for v in g))
    d = list(g)
    if scaled and p_norm != 0 and g_norm != 0:
        ratio = trust * p_norm / (g_norm + decay * p_norm + 1e-8)
        if clip_lr:
            ratio = min(ratio / lr, 1)
        d = [ratio * (gi + decay * pi) for gi, pi in zip(g, p)]
    buffer = [momentum * b + di for b, di in zip(buffer, d)]
    moves = [di + momentum * b for di, b in zip(d, buffer)] if nesterov else buffer
    return [pi - lr * m for pi, m in zip(p, moves)], buffer


@pytest.mark.parametrize("exclude", ["no_decay", "vectors"])
@pytest.mark.parametrize("filter", ["auto", "disable"])
@pytest.mark.parametrize("clip_lr", [False, True])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, False), (0.9, True), (0.0, True)])
def test_equals_the_scalar_version(exclude: str, filter: str, clip_lr: bool, momentum: float, nesterov: bool):
    """Both conventions; tensors and gradients of zeros; a ratio below and above lr."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2), nn.Linear(2, 2))
    nn.init.zeros_(net[2].weight)
    options = {"momentum": momentum, "use_nesterov": nesterov, "lars_trust": 0.02, "lars_clip_lr": clip_lr}
    groups = param_groups(net, weight_decay=0.1, weight_decay_filter=filter)
    optimizer = build_optimizer(Section(opt="lars", lars_exclude=exclude, **options), groups, CPU, net)
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    expected = {name: (p.flatten().tolist(), [0.0] * p.numel()) for name, p in net.named_parameters()}
    for lr in (0.5, 0.001, 2.0, 1.0):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for name, p in net.named_parameters():
            p.grad = torch.randn_like(p) * (0 if name == "3.weight" else 0.1)
            scaled = p.ndim != 1 if exclude == "vectors" else decays[name] != 0
            expected[name] = scalar_lars(
                *(expected[name][0], p.grad.flatten().tolist(), expected[name][1]),
                lr=lr,
                decay=decays[name],
                scaled=scaled,
                clip_lr=clip_lr,
                trust=0.02,
                momentum=momentum,
                nesterov=nesterov and momentum > 0,
            )
        optimizer.step()
    for name, p in net.named_parameters():
        assert p.flatten().tolist() == pytest.approx(expected[name][0], rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize(("name", "clip_lr"), [("lars", False), ("larc", True)])
@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_timms(name: str, clip_lr: bool, nesterov: bool):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3))
    twin = copy.deepcopy(net)
    groups = param_groups(net, weight_decay=0.05, weight_decay_filter="auto")
    section = Section(opt="lars", use_nesterov=nesterov, lars_clip_lr=clip_lr)
    ours = build_optimizer(section, groups, CPU, net)
    theirs = timm.optim.create_optimizer_v2(twin, f"n{name}" if nesterov else name, lr=0.0, weight_decay=0.05)
    for lr in (1.0, 0.5, 1e-4, 1.0):
        x = torch.randn(8, 6)
        for model, optimizer in ((net, ours), (twin, theirs)):
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimizer.step()
        for a, b in zip(net.parameters(), twin.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)
