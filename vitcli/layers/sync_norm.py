"""Batch normalization over the batches of all processes together, on CPUs as well as on GPUs."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

BatchNorm = nn.modules.batchnorm._BatchNorm


def synchronize_norms(module: nn.Module) -> nn.Module:
    """Let each batch normalization inside `module` use the statistics of all ranks; parameters stay the same tensors.

    Only where several processes train together; `module` is on its device already. Norms that are held in eval mode
    (`freeze`) stay as they are.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return module
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, BatchNorm) and child.training:
                setattr(parent, name, _synchronized(child))
    return module


class CpuSyncBatchNorm(BatchNorm):
    """`nn.SyncBatchNorm` for CPUs, where PyTorch's own refuses to run: (B, C, ...), statistics in float32.

    The ranks may have batches of different sizes.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        over, shape = [0, *range(2, input.ndim)], (1, -1, *(1,) * (input.ndim - 2))
        x = input.float()
        own_count = x.new_full((1,), x.numel() // x.shape[1])
        total = _SumOverRanks.apply(torch.cat([x.sum(over), own_count]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centered = x - mean.view(shape)
        var = _SumOverRanks.apply(centered.square().sum(over)) / count
        track_statistics(self, mean, var * count / (count - 1))
        scale = torch.rsqrt(var + self.eps) * (1 if self.weight is None else self.weight)
        out = centered * scale.view(shape)
        return (out if self.bias is None else out + self.bias.view(shape)).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions."""


@torch.no_grad()
def track_statistics(norm: BatchNorm, mean: Tensor, unbiased_var: Tensor) -> None:
    """Update the running statistics of `norm` as its own forward does."""
    if norm.num_batches_tracked is None or norm.running_mean is None or norm.running_var is None:
        return
    norm.num_batches_tracked.add_(1)
    momentum = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(unbiased_var, momentum)


class _SumOverRanks(torch.autograd.Function):
    """The sum of every rank's tensor; each of them has a share in the losses of all ranks."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def _synchronized(norm: BatchNorm) -> nn.Module:
    """A norm of all ranks with the parameters and buffers of `norm`."""
    parameters = next(iter(norm.parameters()), None)
    kind = CpuSyncBatchNorm if parameters is None or parameters.device.type == "cpu" else nn.SyncBatchNorm
    synchronized = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    synchronized._parameters, synchronized._buffers = norm._parameters, norm._buffers
    return synchronized
