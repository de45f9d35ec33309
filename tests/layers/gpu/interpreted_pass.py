"""A model with the GPU's kernels trains like the plain one; run by `test_interpreted`, in the interpreter of Triton."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from tests.models.oracle import images
from tests.support.tensors import randomized
from vitcli.layers.fake_quant import simulate_int8
from vitcli.layers.gpu import depthwise, modules, use_gpu_kernels
from vitcli.layers.reparam import reparameterize
from vitcli.layers.repmixer import RepMixer
from vitcli.models.fastvit import FastViT
from vitcli.models.registry import create_model

#: of the training curves; the interpreter takes 7 s for one
STEPS = 200


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "ROWS", 1)


def small() -> FastViT:
    torch.manual_seed(0)
    return randomized(FastViT(depths=(1, 1), dim=4, mlp_ratio=2, attention=False, num_classes=3))


def both() -> tuple[nn.Module, nn.Module]:
    plain = small().train()
    return plain, use_gpu_kernels(copy.deepcopy(plain))


def trained(model: nn.Module, px: int = 16) -> dict[str, torch.Tensor]:
    """Loss, statistics and gradients (as `name.grad`) of one step."""
    loss = F.cross_entropy(model(images(2, 3, px, px)), torch.arange(2))
    loss.backward()
    gradients = {f"{name}.grad": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **dict(model.named_buffers()), **gradients}


def test_which_modules_are_replaced():
    model = use_gpu_kernels(small())
    kinds = [type(module) for module in model.modules()]
    assert nn.BatchNorm2d not in kinds
    assert RepMixer not in kinds
    assert kinds.count(modules.GpuRepMixer) == 2
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all((conv.groups > 1) == (type(conv) is modules.GpuDepthwiseConv2d) for conv in convs)
    assert [type(module) for module in use_gpu_kernels(model).modules()] == kinds
    assert list(model.state_dict()) == list(small().state_dict())


def test_a_step_gives_the_same_values(monkeypatch: pytest.MonkeyPatch):
    plain, fast = both()
    calls = []
    for name in ("depthwise_convs", "sum_of_norms"):
        of_base = getattr(modules, name)
        monkeypatch.setattr(modules, name, lambda *a, f=of_base, **k: (calls.append(f.__name__), f(*a, **k))[1])
    torch.testing.assert_close(trained(fast), trained(plain), atol=2e-5, rtol=1e-4)
    assert calls.count("depthwise_convs") == 7  # the stem's, two for each block, the halving, the last
    assert calls.count("sum_of_norms") == 10  # and the stem's two others, and the one after the halving
    plain.load_state_dict(fast.state_dict())
    assert torch.equal(fast.eval()(images(2, 3, 16, 16)), plain.eval()(images(2, 3, 16, 16)))


def test_native_and_hooks():
    plain, fast = both()
    for module in fast.modules():
        module.native = True
    assert torch.equal(fast(images(2, 3, 16, 16)), plain(images(2, 3, 16, 16)))
    block = copy.deepcopy(fast.stages[0].blocks[0].token_mixer)
    block.native, seen = False, []
    block.mixer.main.conv.register_forward_hook(lambda *_: seen.append(1))
    block(torch.randn(2, 4, 2, 2))
    assert seen


def test_folding():
    plain, fast = both()
    expected = reparameterize(plain, fold="full").state_dict()
    torch.testing.assert_close(reparameterize(fast, fold="full").state_dict(), expected, atol=0, rtol=0)


def test_simulated_int8_stays():
    plain, fast = small().train(), small().train()
    for model in (plain, fast):
        simulate_int8(model)
    assert torch.equal(use_gpu_kernels(fast)(images(2, 3, 16, 16)), plain(images(2, 3, 16, 16)))


def test_export_and_compilation_see_pytorchs_operators():
    plain, fast = both()
    x = images(2, 3, 16, 16)
    graphs = [torch.export.export(model.eval(), (x,)).graph for model in (plain, fast)]
    assert [node.target for node in graphs[0].nodes] == [node.target for node in graphs[1].nodes]


@pytest.mark.soak
def test_training_curves_lie_on_top_of_each_other(monkeypatch: pytest.MonkeyPatch):
    """Steps on handwritten digits, next to the same in float64, which says how much of a difference is rounding.

    Rounding grows from step to step, and differently for sums in another order: 1e-4 is allowed, less than a drawn
    curve shows.
    """
    monkeypatch.setattr(depthwise, "ROWS", 4)
    monkeypatch.setattr(depthwise, "THREADS", 4096)  # larger tiles, and so fewer programs, one after the other here
    exact, plain, fast = curve(torch.float64), curve(torch.float32), curve(torch.float32, use_gpu_kernels)
    print(f"{len(fast)} steps, loss {fast[0]:.4f} to {fast[-1]:.4f}, largest distance from float64:")
    print(f"PyTorch {(plain - exact).abs().max():.2e}, Triton {(fast - exact).abs().max():.2e}")
    assert fast[-5:].mean() < 0.7 * fast[0]
    assert (fast - exact).abs().max() <= max(1e-4, 4 * (plain - exact).abs().max())


def curve(dtype: torch.dtype, kernels: Callable[[nn.Module], nn.Module] = lambda model: model) -> torch.Tensor:
    """The loss of each step, in float64."""
    digits = load_digits()
    pixels = torch.from_numpy(digits.images).div(8).sub(1).to(dtype)[:, None]  # (1797, 1, 8, 8)
    torch.manual_seed(0)
    sizes = {"depths": (1, 1), "dim": 8, "mlp_ratio": 2, "attention": False, "num_classes": 10, "in_chans": 1}
    model = kernels(FastViT(**sizes, layer_scale_init=0.1)).to(dtype).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        chosen = torch.randint(len(pixels), (16,))
        images = F.interpolate(pixels[chosen], scale_factor=2.0)
        loss = F.cross_entropy(model(images), torch.from_numpy(digits.target)[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12"])
def test_a_step_of_the_real_model(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setattr(depthwise, "ROWS", 4)
    torch.manual_seed(0)
    plain = create_model(name, num_classes=5, img_size=64).train()
    fast = use_gpu_kernels(copy.deepcopy(plain))
    torch.testing.assert_close(trained(fast, 64), trained(plain, 64), atol=1e-5, rtol=1e-4)
