"""PatchDropout: train on a random part of the patches."""

from typing import Literal

import torch
from torch import Tensor, nn

PatchDropMode = Literal["drop", "zero"]


class PatchDropout(nn.Module):
    """Drops a share `drop_prob` of the patch tokens in training; does nothing in eval mode.

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
