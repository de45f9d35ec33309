"""The pass over a model changes its kernels and nothing else; PyTorch's plain modules are the reference."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models.oracle import images, pair
from tests.support.tensors import randomized
from vitcli.layers.cpu import CpuRepMixer, use_cpu_kernels
from vitcli.layers.cpu.depthwise import CpuDepthwiseConv2d
from vitcli.layers.fake_quant import simulate_int8
from vitcli.layers.reparam import reparameterize
from vitcli.layers.repmixer import RepMixer
from vitcli.models.fastvit import FastViT
from vitcli.optim.ema import ExponentialMovingAverage
from vitcli.optim.freeze import freeze


def small(**options: object) -> FastViT:
    torch.manual_seed(0)
    shape = {"depths": (1, 1, 1, 1), "dim": 32, "mlp_ratio": 2, "attention": True, "num_classes": 5}
    model = FastViT(**{**shape, **options})
    return randomized(model)


def both(**options: object) -> tuple[nn.Module, nn.Module]:
    """The model as it is written, and a copy with the fast kernels."""
    plain = small(**options).train()
    return plain, use_cpu_kernels(copy.deepcopy(plain))


def trained(model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights, statistics and gradients (as `name.grad`) after one step."""
    model.zero_grad()
    F.cross_entropy(model(images(4, 3, 64, 64)), torch.arange(4)).backward()
    gradients = {f"{name}.grad": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    return {**{name: tensor.clone() for name, tensor in model.state_dict().items()}, **gradients}


def assert_same(model: nn.Module, reference: nn.Module) -> None:
    torch.testing.assert_close(trained(model), trained(reference), atol=2e-5, rtol=1e-3)


def test_which_modules_are_replaced():
    model = use_cpu_kernels(small())
    kinds = [type(module) for module in model.modules()]
    assert nn.BatchNorm2d not in kinds
    assert RepMixer not in kinds
    assert kinds.count(CpuRepMixer) == 3
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all((conv.groups > 1) == (type(conv) is CpuDepthwiseConv2d) for conv in convs)
    assert [type(module) for module in use_cpu_kernels(model).modules()] == kinds


def test_a_step_gives_the_same_values():
    plain, fast = both()
    assert list(fast.state_dict()) == list(plain.state_dict())
    for _ in range(3):
        assert_same(fast, plain)
    plain.load_state_dict(fast.state_dict())
    assert torch.equal(fast.eval()(images(2, 3, 64, 64)), plain.eval()(images(2, 3, 64, 64)))


def test_the_fast_kernels_are_used(monkeypatch: pytest.MonkeyPatch):
    """They give slightly different bits, so identical ones would mean that PyTorch's code ran."""
    plain, fast = both()
    assert not torch.equal(fast(images(4, 3, 64, 64)), plain(images(4, 3, 64, 64)))
    once, again = (trained(copy.deepcopy(fast)) for _ in range(2))
    torch.testing.assert_close(once, again, atol=0, rtol=0)


def test_gradient_checkpointing():
    plain, fast = both()
    for stage in fast.stages:
        stage.grad_checkpointing = True
    assert_same(fast, plain)


@pytest.mark.parametrize("fold", ["standard", "full"])
def test_folding(fold: str):
    plain, fast = both()
    expected = reparameterize(plain, fold=fold).state_dict()
    torch.testing.assert_close(reparameterize(fast, fold=fold).state_dict(), expected, atol=0, rtol=0)


def test_frozen_norms_keep_their_statistics():
    plain, fast = both()
    for model in (plain, fast):
        freeze(model, [r"^stem", r"norm\."])
        model.train()
    before = {name: tensor.clone() for name, tensor in fast.named_buffers() if name.startswith("stem")}
    assert_same(fast, plain)
    torch.testing.assert_close({name: fast.state_dict()[name] for name in before}, before, atol=0, rtol=0)


def test_moving_average():
    _, fast = both()
    average = ExponentialMovingAverage(fast, decay=0.5, ramp_steps=0)
    assert type(average.model.stages[0].blocks[0].token_mixer) is CpuRepMixer
    before = {name: tensor.clone() for name, tensor in average.model.state_dict().items()}
    after = trained(fast)
    average.update(1)
    for name, value in average.model.state_dict().items():
        expected = (before[name] + after[name]) / 2 if value.is_floating_point() else after[name]
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_simulated_int8(first: bool):
    """Before or after the pass: its fixed norms are not undone."""
    plain, fast = small().train(), small().train()
    simulate_int8(plain)
    for change in (use_cpu_kernels, simulate_int8) if first else (simulate_int8, use_cpu_kernels):
        change(fast)
    assert_same(fast, plain)


def test_export_and_compilation_see_pytorchs_operators():
    plain, fast = both(depths=(1,), attention=False)
    x = images(2, 3, 32, 32)
    for model in (plain.eval(), fast.eval()):
        model.requires_grad_(False)
    graphs = [torch.export.export(model, (x,)).graph for model in (plain, fast)]
    assert [node.target for node in graphs[0].nodes] == [node.target for node in graphs[1].nodes]
    outputs = [torch.compile(model.train(), backend="aot_eager", fullgraph=True)(x) for model in (plain, fast)]
    assert torch.equal(*outputs)


def test_training_equals_timms():
    ours, theirs = pair("fastvit_sa12")
    assert_same(use_cpu_kernels(ours).train(), theirs.train())
