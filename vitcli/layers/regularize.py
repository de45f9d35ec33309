"""Regularization: scaled residual branches, and dropping a branch for some samples, or patches of each."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

DropPathMode = Literal["zero", "skip"]
PatchDropMode = Literal["drop", "zero"]


class LayerScale(nn.Module):
    """Multiplies by a learned factor of `shape`: (D,) for tokens (B, N, D), (C, 1, 1) for a map (B, C, H, W).

    Source: CaiT, arXiv 2103.17239, eq. 4.
    """

    def __init__(self, *shape: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full(shape, init))

    def forward(self, x: Tensor) -> Tensor:
        # Autocast leaves plain products alone: without the cast the residual stream would become float32.
        return x * self.gamma.to(x.dtype)


class DropPath(nn.Module):
    """Zeroes whole samples with probability `drop_prob` in training and scales the others up to the same mean.

    Source: Deep Networks with Stochastic Depth, arXiv 1603.09382.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob  # 0..1
        #: an input of compiled code, which a number would be a part of: blocks with other rates could not share it
        self.keep_prob = torch.tensor(1 - drop_prob)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        each = (x.shape[0], *(1,) * (x.ndim - 1))  # (B, 1, ...)
        if torch.compiler.is_compiling():
            kept = (torch.rand(each, device=x.device) < self.keep_prob).to(x.dtype)
            return x * (kept / self.keep_prob.clamp(min=1e-12))
        keep_prob = 1 - self.drop_prob
        return x if keep_prob == 1 else x * (x.new_empty(each).bernoulli_(keep_prob) / max(keep_prob, 1e-12))

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:.3g}"


def drop_path(drop_prob: float) -> nn.Module:
    """A DropPath, or an identity if `drop_prob` is 0."""
    return DropPath(drop_prob) if drop_prob > 0 else nn.Identity()


class Residual(nn.Module):
    """x + branch(x), in training without the branch for a share `drop_prob` of the samples.

    Args:
        drop_prob: 0..1.
        mode: "zero" computes the branch for all samples and zeroes each independently. "skip" does not compute the
            dropped ones (DINOv2, arXiv 2304.07193, section 5): a random subset of fixed size is kept, which is the
            whole batch if that is too small to drop `drop_prob` of it.
    """

    def __init__(self, drop_prob: float, mode: DropPathMode = "zero") -> None:
        super().__init__()
        self.skips = mode == "skip" and drop_prob > 0
        self.drop_prob = drop_prob
        self.drop = drop_path(0.0 if self.skips else drop_prob)

    def forward(
        self,
        x: Tensor,
        branch: Callable[[Tensor, Tensor | None], Tensor],
        visible: Tensor | None = None,
        num_queries: int | None = None,
    ) -> Tensor:
        """x (B, N, D) -> (B, N, D), or (B, num_queries, D) if the branch returns the first tokens only."""
        base, batch = x[:, :num_queries], x.shape[0]
        num_kept = max(round(batch * (1 - self.drop_prob)), 1) if self.skips and self.training else batch
        if num_kept == batch:
            return base + self.drop(branch(x, visible))
        rows = torch.randperm(batch, device=x.device)[:num_kept]
        added = branch(x[rows], None if visible is None else visible[rows])
        return base.index_add(0, rows, added.to(base.dtype), alpha=batch / num_kept)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:.3g}, mode={'skip' if self.skips else 'zero'}"


class PatchDropout(nn.Module):
    """PatchDropout: drops a share `drop_prob` of the patch tokens in training; does nothing in eval mode.

    Args:
        drop_prob: 0 <= drop_prob < 1.
        mode: "drop" removes the tokens, which makes the step faster: int(N * (1 - drop_prob)) random ones of each
            sample stay, in order (PatchDropout, arXiv 2208.07220). "zero" sets each token to zero independently; it
            still attends and is averaged (le0x99/fast-vision-transformers). Neither rescales the remaining tokens.
        num_prefix_tokens: number of first tokens (class, registers), which always stay.
    """

    def __init__(self, drop_prob: float, mode: PatchDropMode = "drop", *, num_prefix_tokens: int = 0) -> None:
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise ValueError(f"the share of dropped patches must be in 0 <= share < 1, not {drop_prob}")
        self.drop_prob, self.mode, self.num_prefix_tokens = drop_prob, mode, num_prefix_tokens

    def forward(self, x: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x (B, P+N, D), visible (B, P+N) bool or None -> the tokens that stay, and their visibility."""
        if not self.training or self.drop_prob == 0:
            return x, visible
        batch, num_tokens, _ = x.shape
        prefix = self.num_prefix_tokens
        num_patches = num_tokens - prefix
        chances = torch.rand(batch, num_patches, device=x.device)
        if self.mode == "zero":
            kept = torch.cat([chances.new_ones(batch, prefix), (chances >= self.drop_prob).to(chances.dtype)], dim=1)
            return x * kept.to(x.dtype).unsqueeze(-1), visible
        num_kept = max(int(num_patches * (1 - self.drop_prob)), 1)
        patches = chances.argsort(dim=1)[:, :num_kept].sort(dim=1).values + prefix  # (B, K)
        first = torch.arange(prefix, device=x.device).expand(batch, -1)
        kept = torch.cat([first, patches], dim=1)  # (B, P+K)
        x = x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[2]))
        return x, None if visible is None else visible.gather(1, kept)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:.3g}, mode={self.mode}"
