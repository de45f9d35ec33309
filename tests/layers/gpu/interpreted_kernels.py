"""The Triton kernels give PyTorch's values in float64; run by `test_interpreted`, in the interpreter of Triton."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.tensors import randomized
from vitcli.layers.gpu import depthwise
from vitcli.layers.gpu.depthwise import depthwise_convs
from vitcli.layers.gpu.norm import GpuBatchNorm2d, Term, is_fast, sum_of_norms
from vitcli.models.fastvit import VARIANTS

#: kernel, stride, outputs per channel of every depthwise layer of FastViT; all variants have the same
KINDS = [(3, 1, 1), (7, 1, 1), (7, 2, 2), (3, 2, 2), (3, 2, 1), (1, 2, 1), (3, 1, 2), (1, 1, 2)]
#: maps that do not fill a block, are smaller than the kernel, and one pixel
SIZES = [(3, 5, 6, 7), (1, 17, 2, 9), (2, 2, 1, 1)]


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows at once show what four do, in half of the interpreter's time."""
    monkeypatch.setattr(depthwise, "ROWS", 2)


def convolved(x: Tensor, weights: list[Tensor], stride: int) -> list[Tensor]:
    return [F.conv2d(x, w, None, stride, w.shape[-1] // 2, groups=x.shape[1]) for w in weights]


def assert_same_convolutions(kinds, size, dtype=torch.float64, **tolerances) -> None:
    """Outputs, and gradients of x (which is used besides) and of all weights."""
    torch.manual_seed(0)
    stride = kinds[0][1]
    x = torch.randn(*size, dtype=dtype, requires_grad=True)
    weights = [torch.randn(m * size[1], 1, k, k, dtype=dtype, requires_grad=True) for k, _, m in kinds]
    expected = [*convolved(x, weights, stride), x * 1]
    outs = depthwise_convs(x, weights, stride=stride)
    grads = [torch.randn_like(out) for out in expected]
    torch.testing.assert_close(list(outs), expected, **tolerances)
    found, wanted = (torch.autograd.grad(of, [x, *weights], grads) for of in (outs, expected))
    torch.testing.assert_close(found, wanted, **tolerances)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_depthwise(kind):
    assert_same_convolutions([kind], SIZES[0])


@pytest.mark.soak
@pytest.mark.parametrize("size", SIZES[1:], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_depthwise_sizes(kind, size):
    assert_same_convolutions([kind], size)


@pytest.mark.soak
@pytest.mark.parametrize("dim", sorted({variant.dim for variant in VARIANTS.values()}))
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_depthwise_channels(monkeypatch, kind, dim, factor):
    monkeypatch.setattr(depthwise, "ROWS", 4)
    assert_same_convolutions([kind], (1, dim * factor, 8 // factor, 4), torch.float32, atol=1e-4, rtol=1e-4)


def test_two_convolutions_of_one_map():
    assert_same_convolutions([(3, 2, 2), (1, 2, 2)], (2, 3, 5, 4))


def test_depthwise_of_any_strides():
    x = torch.randn(6, 4, 2, 5).permute(2, 1, 3, 0)[:, :, ::2]  # (2, 4, 3, 6)
    weight = torch.randn(3, 3, 1, 4).permute(3, 2, 1, 0)
    torch.testing.assert_close(depthwise_convs(x, [weight])[0], convolved(x, [weight], 1)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """Sums are float32: the result is the exact one, rounded once."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 5, 3).to(dtype), torch.randn(4, 1, 3, 3)
    out = depthwise_convs(x, [weight])[0]
    exact = convolved(x.double(), [weight.double()], 1)[0]
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-3)


def test_gradcheck():
    torch.manual_seed(0)
    x, weight = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((1, 2, 2, 2), (2, 1, 1, 1)))
    norm = randomized(nn.BatchNorm2d(2).double()).train()
    affine = [p.detach().clone().requires_grad_() for p in norm.parameters()]

    def both(x: Tensor, weight: Tensor, *affine: Tensor) -> Tensor:
        norm._parameters.update(zip(("weight", "bias"), affine))
        return sum_of_norms([*depthwise_convs(x, [weight])[:1], x], [[Term(norm)], [Term(norm)]], gelu=True)

    assert torch.autograd.gradcheck(both, (x, weight, *affine), fast_mode=True)


def test_sum_of_norms():
    """Three norms of x, one of y; outputs, gradients and running statistics. A large mean costs no precision."""
    torch.manual_seed(0)
    norms = [randomized(nn.BatchNorm2d(5).double()).train() for _ in range(4)]
    judges = copy.deepcopy(norms)
    x, y = (torch.randn(3, 5, 9, 4, dtype=torch.float64).add(100).requires_grad_() for _ in range(2))
    weight, gain = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    column = (-1, 1, 1)
    of_x = [Term(norms[0], weight=weight), Term(norms[1]), Term(norms[2], sign=-1)]
    for residual, gelu in ((True, False), (False, True)):
        out = sum_of_norms([x, y], [of_x, [Term(norms[3])]], gain=gain, residual=residual, gelu=gelu)
        a, b, c, d = (judge(m) for judge, m in zip(judges, (x * weight.view(column), x, x, y)))
        expected = gain.view(column) * (a + b - c + d) + (x if residual else 0)
        expected = F.gelu(expected) if gelu else expected
        torch.testing.assert_close(out, expected, atol=1e-9, rtol=1e-9)
        grad = torch.randn_like(out)
        found, wanted = (
            torch.autograd.grad(o, [x, y, weight, gain, *(p for norm in of for p in norm.parameters())], grad)
            for o, of in ((out, norms), (expected, judges))
        )
        torch.testing.assert_close(found, wanted, atol=1e-8, rtol=1e-8)
        for norm, judge in zip(norms, judges):
            torch.testing.assert_close(norm.state_dict(), judge.state_dict())


def test_statistics_in_float32_survive_a_large_mean():
    norm = GpuBatchNorm2d(3)
    x = torch.randn(8, 3, 8, 8) + 1000
    norm(x)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.double().var((0, 2, 3)).float(), rtol=1e-4, atol=0)


def test_norms_that_stay_pytorchs():
    x = torch.randn(2, 5, 3, 3)
    plain = nn.BatchNorm2d(5)
    assert is_fast(x, [plain, GpuBatchNorm2d(5)])
    assert not is_fast(x, [plain, nn.BatchNorm2d(5).eval()])
    assert not is_fast(x, [plain, nn.BatchNorm2d(5, eps=1e-3)])
    assert not is_fast(x, [plain, nn.SyncBatchNorm(5)])
    assert not is_fast(x, [nn.BatchNorm2d(5, momentum=None)])
    assert not is_fast(x, [nn.BatchNorm2d(5, track_running_stats=False)])
    assert not is_fast(x.long(), [plain])
    assert not is_fast(x[:1, :, :1, :1], [plain])


def test_the_same_bits_again():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    weight = torch.randn(3, 1, 3, 3, requires_grad=True)
    once, again = (torch.autograd.grad(depthwise_convs(x, [weight])[0].sin().sum(), [x, weight]) for _ in range(2))
    torch.testing.assert_close(once, again, atol=0, rtol=0)
