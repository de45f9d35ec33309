"""Optimizers, groups and the average against torch, timm and hand computation."""

import copy
import math

import pytest
import timm.optim
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from vitcli.errors import UsageError
from vitcli.models.registry import create_model
from vitcli.optim.ema import ExponentialMovingAverage
from vitcli.optim.optimizers import OPTIMIZERS, build_optimizer
from vitcli.optim.param_groups import param_groups
from vitcli.recipe.schema import Optimizer as Section

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_learns_and_is_deterministic(name: str):
    """Every optimizer fits a small regression, and twice the same way to the last bit."""

    def run() -> tuple[float, list[torch.Tensor]]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        x = torch.randn(64, 6)
        y = x.sum(1, keepdim=True).sin()
        groups = param_groups(net, weight_decay=1e-4, weight_decay_filter="auto")
        optimizer = build_optimizer(Section(opt=name, use_nesterov=True), groups, CPU)
        for group in optimizer.param_groups:
            group["lr"] = {"rmsprop": 1e-3, "adagrad": 5e-2, "sgd": 0.1, "momentum": 0.1, "nesterov": 0.1}.get(
                name, 1e-2
            )
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


def test_found_inf_drops_the_step():
    """What the loop relies on to keep NaN out of the weights without asking the device."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = build_optimizer(Section(opt="adamw"), [{"params": [weight], "weight_decay": 0.1}], CPU)
    weight.grad = torch.full((3,), float("nan"))
    optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(1.0)
    optimizer.step()
    assert torch.equal(weight.detach(), torch.ones(3))


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_a_dropped_first_step_leaves_clean_momentum(name: str):
    """As a loss scaler drops it: torch's own buffer would be uninitialized memory. And the first step is torch's."""
    weight, twin = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    ours = build_optimizer(Section(opt=name), [{"params": [weight], "weight_decay": 0.1}], CPU)
    theirs = torch.optim.SGD([twin], lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=name == "nesterov")
    ours.param_groups[0]["lr"] = 0.1
    weight.grad = torch.full((3,), float("nan"))
    ours.grad_scale, ours.found_inf = None, torch.tensor(1.0)
    ours.step()
    ours.found_inf = torch.tensor(0.0)
    for _ in range(2):
        weight.grad, twin.grad = torch.full((3,), 0.5), torch.full((3,), 0.5)
        ours.step()
        theirs.step()
        assert torch.allclose(weight, twin)


def test_auto_filter_is_timms():
    """Names that are spared by `auto` are those timm spares; layer scales (C, 1, 1) are decayed (20 of 20 for T8)."""
    model = create_model("fastvit_t8", num_classes=10)
    groups = param_groups(model, weight_decay=0.05, weight_decay_filter="auto")
    theirs = timm.optim.param_groups_weight_decay(model, 0.05)
    sizes = {group["weight_decay"]: len(group["params"]) for group in theirs}
    assert {group["weight_decay"]: len(group["params"]) for group in groups} == sizes
    decayed = next(group["names"] for group in groups if group["weight_decay"])
    assert sum("gamma" in name for name in decayed) == 20


def test_filters():
    model = create_model("fastvit_sa12", num_classes=10)
    total = len(list(model.parameters()))
    count = {
        f: [len(g["params"]) for g in param_groups(model, weight_decay=1.0, weight_decay_filter=f)]
        for f in ("disable", "auto", "norm_and_bias")
    }
    assert count["disable"] == [total]
    spared = next(
        g["names"]
        for g in param_groups(model, weight_decay=1.0, weight_decay_filter="norm_and_bias")
        if not g["weight_decay"]
    )
    kinds = dict(model.named_modules())
    assert all(
        name.endswith("bias") or isinstance(kinds[name.rpartition(".")[0]], nn.modules.batchnorm._NormBase)
        for name in spared
    )
    for groups in count.values():
        assert sum(groups) == total


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12"])
def test_layer_decay_is_timms(name: str):
    """Every parameter of FastViT has timm's factor."""
    theirs = timm.create_model(name, num_classes=10)
    names = {id(p): n for n, p in theirs.named_parameters()}
    groups = timm.optim.param_groups_layer_decay(theirs, layer_decay=0.7)
    expected = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert scales(create_model(name, num_classes=10)) == pytest.approx(expected)


@pytest.mark.parametrize("pool", [{}, {"global_pool": "avg", "class_token": False}], ids=str)
def test_layer_decay_of_a_vit_is_timms(pool: dict):
    shape = {"img_size": 32, "num_classes": 5, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, **pool}
    theirs = timm.create_model("vit_tiny_patch16_224", **shape, reg_tokens=2)
    names = {id(p): n for n, p in theirs.named_parameters()}
    groups = timm.optim.param_groups_layer_decay(theirs, layer_decay=0.7)
    expected = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    ours = scales(create_model("vit_ti_patch16", **shape, reg_tokens=2))
    assert ours == pytest.approx(expected)
    assert ours["pos_embed"] == pytest.approx(0.7**4)


def scales(model: nn.Module) -> dict[str, float]:
    groups = param_groups(model, weight_decay=0.05, weight_decay_filter="auto", layer_decay=0.7)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    return {name: group["lr_scale"] for group in groups for name in group["names"]}


def test_layer_decay_needs_layers():
    with pytest.raises(UsageError, match="Linear does not tell its layers"):
        param_groups(nn.Linear(2, 2), weight_decay=0.1, weight_decay_filter="auto", layer_decay=0.5)


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
    from vitcli.engine.checkpoint import optimizer_tensors, restore_optimizer

    for name in OPTIMIZERS:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
        twin = copy.deepcopy(net)
        section = Section(opt=name)
        one, two = (
            build_optimizer(section, param_groups(n, weight_decay=0.1, weight_decay_filter="auto"), CPU)
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
