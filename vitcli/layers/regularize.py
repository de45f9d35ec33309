"""What holds a residual branch back: a learned scale, and dropping it for some samples (stochastic depth)."""

import torch
from torch import Tensor, nn


class LayerScale2d(nn.Module):
    """Multiplies each channel of a map (B, C, H, W) by a learned number (CaiT, arXiv 2103.17239, eq. 4)."""

    def __init__(self, dim: int, *, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim, 1, 1), init))

    def forward(self, x: Tensor) -> Tensor:
        # Plain products are not autocast: without the cast the float32 scale would make the residual stream float32.
        return x * self.gamma.to(x.dtype)


class DropPath(nn.Module):
    """Zeroes whole samples with probability `drop_prob` in training and scales the others up to the same mean.

    Source: Deep Networks with Stochastic Depth, arXiv 1603.09382.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob  # 0..1

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0 or not self.training:
            return x
        keep_prob = 1 - self.drop_prob
        kept = x.new_empty(x.shape[0], *(1,) * (x.ndim - 1)).bernoulli_(keep_prob)  # (B, 1, ...) of 0 and 1
        return x * (kept / max(keep_prob, 1e-12))

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:.3g}"


def drop_path(drop_prob: float) -> nn.Module:
    """A DropPath, or nothing where nothing is dropped."""
    return DropPath(drop_prob) if drop_prob > 0 else nn.Identity()
