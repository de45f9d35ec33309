"""Gradient checkpointing, in eager mode and compiled: less is kept, and nothing else changes."""

import pytest
import torch
from torch import Tensor, nn

from vitcli.layers.cpu import use_cpu_kernels
from vitcli.layers.recompute import frozen_statistics, recompute

SIZES = (2, 8, 16, 16)


class Net(nn.Module):
    """Three blocks with norms and random dropout; counts how often a block runs."""

    def __init__(self, *, thrifty: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.thrifty = thrifty
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Dropout(0.3))
            for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + (recompute(block, x) if self.thrifty else block(x))
        return x


def step(net: nn.Module, run: nn.Module) -> tuple[int, list[Tensor]]:
    """Number of values the forward pass keeps of its activations; outputs, gradients and buffers."""
    x, kept = torch.randn(SIZES, generator=torch.Generator().manual_seed(1)).requires_grad_(), []
    parameters = {p.data_ptr() for p in net.parameters()}
    pack = lambda t: (kept.append(t.numel() * (t.is_floating_point() and t.data_ptr() not in parameters)), t)[1]  # noqa: E731
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = run(x)
    out.square().sum().backward()
    return sum(kept), [out.detach(), x.grad, *(p.grad for p in net.parameters()), *net.buffers()]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_less_is_kept_and_the_results_are_the_same(compiled: bool):
    found = []
    for thrifty in (False, True):
        net = Net(thrifty=thrifty).train()
        run = torch.compile(net, backend="aot_eager", fullgraph=True) if compiled else net
        found.append(step(net, run))
    (kept, expected), (kept_thrifty, results) = found
    torch.testing.assert_close(results, expected)
    one = torch.Size(SIZES).numel()
    assert kept >= 3 * 3 * one  # per block: input, what BatchNorm sees, what GELU sees, at least
    assert kept_thrifty < 4 * one  # per block: its input


def test_frozen_statistics():
    model = nn.Sequential(use_cpu_kernels(nn.BatchNorm2d(5)), nn.BatchNorm2d(5))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for size in (2, 8):
        with frozen_statistics(model):
            model(torch.randn(2, 5, size, size))
    torch.testing.assert_close(model.state_dict(), before)
    assert model[1].momentum == 0.1
    model(torch.randn(2, 5, 8, 8))
    assert model[0].num_batches_tracked == model[1].num_batches_tracked == 1
