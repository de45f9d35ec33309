"""Optimizers and the moving average against torch and hand computation."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from vitcli.catalog import OPTIMIZERS
from vitcli.optim.ema import ExponentialMovingAverage
from vitcli.optim.optimizers import build_optimizer, state_bytes
from vitcli.optim.param_groups import param_groups
from vitcli.recipe.schema import Optimizer as Section

CPU = torch.device("cpu")

#: rates for a small regression, where 0.01 does not suit
RATES = {"rmsprop": 1e-3, "adagrad": 5e-2, "sgd": 0.1, "momentum": 0.1, "nesterov": 0.1, "lars": 0.1}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_learns_and_is_deterministic(name: str):
    """Every optimizer fits a small regression, and twice the same way to the last bit."""

    def run() -> tuple[float, list[torch.Tensor]]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        x = torch.randn(64, 6)
        y = x.sum(1, keepdim=True).sin()
        groups = param_groups(net, weight_decay=1e-4, weight_decay_filter="auto")
        optimizer = build_optimizer(Section(opt=name, use_nesterov=True, lars_trust=0.1), groups, CPU, net)
        for group in optimizer.param_groups:
            group["lr"] = RATES.get(name, 1e-2)
        losses = []
        for _ in range(150):
            loss = (net(x) - y).square().mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return losses[-1] / losses[0], [p.detach().clone() for p in net.parameters()]

    first, weights = run()
    second, again = run()
    assert first < 0.6
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(weights, again))


def _torchs(name: str, params: list[nn.Parameter]) -> torch.optim.Optimizer:
    """What a recipe with decay 0.1 means, in torch's own classes and loops."""
    plain = {"weight_decay": 0.1, "foreach": False}
    return {
        "adamw": lambda: torch.optim.AdamW(params, **plain),
        "adam": lambda: torch.optim.Adam(params, **plain),
        "nadam": lambda: torch.optim.NAdam(params, **plain),
        "sgd": lambda: torch.optim.SGD(params, momentum=0.9, **plain),
        "momentum": lambda: torch.optim.SGD(params, momentum=0.9, **plain),
        "nesterov": lambda: torch.optim.SGD(params, momentum=0.9, nesterov=True, **plain),
        "rmsprop": lambda: torch.optim.RMSprop(params, alpha=0.9, momentum=0.9, **plain),
        "adagrad": lambda: torch.optim.Adagrad(params, **plain),
    }[name]()


@pytest.mark.parametrize("device", ["cpu", "mps"])
@pytest.mark.parametrize("name", ["adamw", "adam", "nadam", "sgd", "momentum", "nesterov", "rmsprop", "adagrad"])
def test_equals_torchs(name: str, device: str):
    """Ten steps. cpu: torch's fused kernels where there are any; mps: our classes for devices without them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3))
    twin = copy.deepcopy(net)
    groups = param_groups(net, weight_decay=0.1, weight_decay_filter="disable")
    ours = build_optimizer(Section(opt=name), groups, torch.device(device), net)
    theirs = _torchs(name, list(twin.parameters()))
    for step in range(10):
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for optimizer in (ours, theirs):
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 / (1 + step)
            optimizer.step()
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)


def test_ema_equals_torch_and_averages_buffers():
    """Without a ramp the average is torch's AveragedModel with buffers; the ramp is MindCV's d (1 - exp(-t/2000))."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    ours = ExponentialMovingAverage(net, decay=0.9, ramp_steps=0)

    def lerp(averages, values, _):
        for average, value in zip(averages, values):
            average.lerp_(value, 0.1) if average.is_floating_point() else average.copy_(value)

    theirs = AveragedModel(net, multi_avg_fn=lerp, use_buffers=True)
    theirs.update_parameters(net)  # its first update copies
    for step in range(1, 6):
        net(torch.randn(16, 4))
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        ours.update(step)
        theirs.update_parameters(net)
    for name, value in theirs.module.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(ours.model.state_dict()[name], value, atol=1e-6), name
    assert ours.model[1].num_batches_tracked == net[1].num_batches_tracked
    ramp = ExponentialMovingAverage(net, decay=0.9995, ramp_steps=2000)
    assert ramp.decay_at(1) == pytest.approx(0.9995 * (1 - math.exp(-1 / 2000)))
    assert ramp.decay_at(10**6) == pytest.approx(0.9995)


def test_optimizer_state_round_trip():
    """Through named tensors and back: the next step is bitwise the same."""
    from vitcli.engine.state import optimizer_tensors, restore_optimizer

    for name in OPTIMIZERS:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
        twin = copy.deepcopy(net)
        section = Section(opt=name)
        one, two = (
            build_optimizer(section, param_groups(n, weight_decay=0.1, weight_decay_filter="auto"), CPU, n)
            for n in (net, twin)
        )
        x = torch.randn(8, 6)

        def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor = x) -> None:
            optimizer.zero_grad()
            model(x).square().sum().backward()
            for group in optimizer.param_groups:
                group["lr"] = 1e-2
            optimizer.step()

        step(net, one)
        step(net, one)
        twin.load_state_dict(net.state_dict())
        restore_optimizer(two, twin, {k: v.clone() for k, v in optimizer_tensors(one, net).items()})
        step(net, one)
        step(twin, two)
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters())), name


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_memory_of_the_state(name: str, momentum: float):
    section = Section(opt=name, momentum=momentum)
    layer = nn.Linear(512, 512, bias=False)
    optimizer = build_optimizer(section, param_groups(layer, weight_decay=0, weight_decay_filter="auto"), CPU, layer)
    layer(torch.randn(1, 512)).sum().backward()
    optimizer.step()
    state = [
        value for values in optimizer.state.values() for value in values.values() if isinstance(value, torch.Tensor)
    ]
    found = sum(tensor.numel() * tensor.element_size() for tensor in state) / layer.weight.numel()
    assert state_bytes(section) <= found <= state_bytes(section) + (4 if name == "rmsprop" else 0.3)
