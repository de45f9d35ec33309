"""Self-attention over the positions of a feature map."""

import torch.nn.functional as F
from torch import Tensor, nn


class Attention2d(nn.Module):
    """Multi-head self-attention among all H*W positions: (B, C, H, W) -> (B, C, H, W).

    `dim` must be a multiple of `head_dim`. The projection to queries, keys and values has no bias.
    """

    def __init__(self, dim: int, *, head_dim: int = 32) -> None:
        super().__init__()
        if dim % head_dim:
            raise ValueError(f"dim={dim} cannot be split into heads of {head_dim}")
        self.num_heads = dim // head_dim
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)  # (B, N, C), N = H*W
        qkv = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, heads, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, head_dim)
        mixed = F.scaled_dot_product_attention(q, k, v)
        mixed = self.proj(mixed.transpose(1, 2).flatten(2))  # (B, N, C)
        return mixed.transpose(1, 2).unflatten(-1, (height, width))
