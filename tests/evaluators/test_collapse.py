"""The collapse monitor against values worked out by hand, and on networks that have collapsed."""

import math

import pytest
import torch
from torch import nn

from tests.evaluators.conftest import MakeSetting, Pixels, Unlabeled
from vitcli.evaluators.collapse import Collapse
from vitcli.layers.spread import effective_rank, feature_std


def test_std_by_hand():
    """Normalized rows (1, 0), (0, 1), (-1, 0), (0, -1): mean 0 and variance 1/2 in both dimensions."""
    z = torch.tensor([[3.0, 0.0], [0.0, 0.1], [-7.0, 0.0], [0.0, -1.0]])
    assert feature_std(z).item() == pytest.approx(1 / math.sqrt(2))
    assert feature_std(torch.tensor([[3.0, 4.0], [6.0, 8.0]])).item() == pytest.approx(0, abs=1e-7)
    assert feature_std(torch.tensor([[3.0, 4.0], [4.0, 3.0]])).item() == pytest.approx(0.1)  # 0.6 and 0.8 each


def test_std_of_a_sphere():
    z = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(z).item() == pytest.approx(1 / 8, rel=0.01)


def test_rank_by_hand():
    assert effective_rank(torch.eye(5)).item() == pytest.approx(5)
    assert effective_rank(torch.ones(6, 4)).item() == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.zeros(6, 4)).item() == pytest.approx(1)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))  # singular values 3 and 1
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))).item() == pytest.approx(math.exp(entropy))


def test_half_precision_is_computed_in_float32():
    z = 300 * torch.eye(4, dtype=torch.float16)
    assert effective_rank(z).dtype == feature_std(z).dtype == torch.float32
    assert effective_rank(z).item() == pytest.approx(4)


class Constant(nn.Module):
    """One point, with a little noise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(x), 64) + 1e-3 * x.flatten(1)[:, :64]


class Line(nn.Module):
    """Two opposite points: a large standard deviation, but of rank 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :1].sign() * torch.ones(1, 64)


@pytest.mark.parametrize(("network", "collapsed"), [(Pixels(), 0), (Constant(), 1), (Line(), 1)])
def test_networks(network: nn.Module, collapsed: int, setting: MakeSetting):
    images = Unlabeled(50)
    for where in (setting(images), setting(None, images)):
        evaluator = Collapse(where)
        numbers = evaluator(network)
        assert numbers["collapsed"] == collapsed
        assert (evaluator.warning(numbers) is not None) == collapsed
        assert [name for name, _ in evaluator.rows(numbers)] == ["feature std", "effective rank"]
