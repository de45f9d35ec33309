"""Every optimizer: a step that reads nothing on the host, and a dropped step that leaves no trace."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.support.waiting import NothingWaits, Waited
from vitcli.catalog import OPTIMIZERS
from vitcli.optim import device_step
from vitcli.optim.optimizers import FUSED_DEVICES, build_optimizer, drop_step_if
from vitcli.optim.param_groups import param_groups
from vitcli.recipe.schema import Optimizer as Section

SECTIONS = [
    *(Section(opt=name) for name in OPTIMIZERS),
    Section(opt="sgd", momentum=0.0),
    Section(opt="rmsprop", momentum=0.0),
    Section(opt="lars", use_nesterov=True, lars_exclude="vectors", lars_clip_lr=True),
]


def name_of(section: Section) -> str:
    return "-".join(f"{key}={getattr(section, key)}" for key in sorted(section.model_fields_set))


def small_network() -> nn.Module:
    """Linear layers of equal shape, a convolution, a depthwise one, norms."""
    torch.manual_seed(0)
    convs = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten())
    return nn.Sequential(*convs, nn.Linear(32, 6), nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 6))


def build(section: Section, network: nn.Module, device: str) -> torch.optim.Optimizer:
    groups = param_groups(network, weight_decay=0.1, weight_decay_filter="auto")
    optimizer = build_optimizer(section, groups, torch.device(device), network)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    return optimizer


@pytest.mark.parametrize("section", SECTIONS, ids=name_of)
def test_a_step_reads_nothing_on_the_host(section: Section):
    """Meta tensors stand for those of a GPU. The classes that replace torch's fused kernels are included."""
    network = small_network().to("meta")
    optimizer = build(section, network, "meta")
    for _ in range(2):
        for p in network.parameters():
            p.grad = torch.empty_like(p)
        drop_step_if(optimizer, torch.zeros((), dtype=torch.bool, device="meta"))
        with NothingWaits():
            optimizer.step()


def test_what_the_host_would_wait_for_is_found():
    """By the mode that the other tests rely on: numbers that are read, sizes that depend on them, blocking copies."""
    x, on_host = torch.empty(3, device="meta"), torch.ones(3)
    for waits in (
        lambda: x.sum().item(), lambda: bool((x > 0).any()), lambda: x[x > 0], lambda: x.nonzero(),
        lambda: x.copy_(on_host), lambda: on_host.to("meta"), lambda: on_host.copy_(x),
    ):  # fmt: skip
        with pytest.raises((Waited, NotImplementedError)), NothingWaits():
            waits()
    with NothingWaits():
        x.copy_(on_host, non_blocking=True)
        x.masked_fill_(x > 0, 1.0).mul_(torch.tensor(2.0)).add_(torch.full((), 1.0, device="meta"))


@pytest.mark.parametrize("device", FUSED_DEVICES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_loss_scaler_does_not_ask_either(name: str, device: str):
    """torch's flag: GradScaler hands `found_inf` to the optimizer instead of reading it."""
    assert build(Section(opt=name), small_network(), device)._step_supports_amp_scaling  # type: ignore[attr-defined]


@pytest.mark.parametrize("device", ["host", "device", "unfused"])
@pytest.mark.parametrize("section", SECTIONS, ids=name_of)
@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
def test_a_dropped_step_leaves_no_trace(section: Section, device: str, first: bool, monkeypatch):
    """Weights and state, step counts included, are those of a twin that never took the bad step, to the last bit.

    host: as on a CPU. device: as on a GPU, where the flag is not read. unfused: also without torch's fused kernels.
    """
    if device != "host":
        monkeypatch.setattr(device_step, "is_on_host", lambda flag: False)
    network = small_network()
    twin = copy.deepcopy(network)
    ours, steady = (build(section, n, "mps" if device == "unfused" else "cpu") for n in (network, twin))
    for i, bad in enumerate((first, not first, False, True, False)):
        torch.manual_seed(i)
        for p, q in zip(network.parameters(), twin.parameters(), strict=True):
            q.grad = torch.randn_like(p)
            p.grad = q.grad / torch.zeros_like(p) if bad else q.grad.clone()
            if bad:
                p.grad.view(-1)[0] = float("nan")
        drop_step_if(ours, torch.tensor(bad))
        ours.step()
        if not bad:
            drop_step_if(steady, torch.tensor(False))
            steady.step()
        for p, q in zip(network.parameters(), twin.parameters(), strict=True):
            assert same_bits(p, q)
            for name, value in steady.state[q].items():
                assert same_bits(ours.state[p][name], value), name


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.detach().view(torch.int32), b.detach().view(torch.int32))
