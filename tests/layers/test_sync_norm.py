"""Batch normalization over several processes against PyTorch's over the whole batch in one."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from vitcli.layers.sync_norm import CpuSyncBatchNorm, synchronize_norms
from vitcli.optim.freeze import freeze

#: sizes of the three ranks' batches
SIZES = 1, 5, 2


def new_net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(64, momentum=None))
    for norm in (net[1], net[3]):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return net


def new_batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(sum(SIZES), 3, 6, 6) + 30, torch.randn(sum(SIZES), 64)


def results(net: nn.Module, images: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Two passes; the loss is a sum, so that gradients of the shares of a batch add up."""
    images.requires_grad_()
    for _ in range(2):
        out = net(images)
    (out * weights).sum().backward()
    assert images.grad is not None
    grads = {f"{name}.grad": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {"out": out.detach(), "images.grad": images.grad, **grads, **dict(net.named_buffers())}


def work(rank: int, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=len(SIZES))
    net = new_net()
    before = dict(net.named_parameters())
    synchronize_norms(net)
    assert all(p is before[name] for name, p in net.named_parameters())
    images, weights = (whole.split(SIZES)[rank].clone() for whole in new_batch())
    torch.save(results(net, images, weights), f"{out}.{rank}")

    held = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    freeze(held, [r"^1\."])
    synchronize_norms(held)
    assert not isinstance(held[1], CpuSyncBatchNorm)
    dist.barrier()
    dist.destroy_process_group()


def test_three_processes_with_unequal_batches_are_one(tmp_path: Path):
    mp.spawn(work, (str(tmp_path / "rendezvous"), str(tmp_path / "out")), nprocs=len(SIZES))
    found = [torch.load(tmp_path / f"out.{rank}", weights_only=True) for rank in range(len(SIZES))]
    expected = results(new_net(), *new_batch())
    for name in ("out", "images.grad"):
        torch.testing.assert_close(torch.cat([rank[name] for rank in found]), expected[name], rtol=1e-4, atol=1e-4)
    for name in expected:
        if name.endswith(("weight.grad", "bias.grad")):
            total = sum((rank[name] for rank in found), torch.zeros(()))
            torch.testing.assert_close(total, expected[name], rtol=1e-4, atol=1e-3, msg=name)
        elif "running" in name or "tracked" in name:
            assert all(torch.equal(rank[name], found[0][name]) for rank in found)
            torch.testing.assert_close(found[0][name], expected[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_one_process_keeps_its_norms(dtype: torch.dtype):
    net = new_net().to(dtype)
    assert not any(isinstance(m, CpuSyncBatchNorm) for m in synchronize_norms(net).modules())
