"""Multi-head self-attention, over tokens and over the positions of a feature map."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

from vitcli.errors import UsageError

Scale = Literal["head", "full", "learned"]


class Attention(nn.Module):
    """Self-attention among tokens: (B, N, D) -> (B, N, D). Parameter names are timm's.

    Args:
        dim: D.
        num_heads: number of heads; D must be a multiple of it unless `head_dim` is given.
        head_dim: width of one head; None: D / num_heads.
        qkv_bias: whether queries, keys and values have a bias.
        scale: factor of the scores. "head": head_dim^-0.5. "full": D^-0.5, as in the first vit-pytorch. "learned": one
            per head, and no token attends to itself (locality self-attention, arXiv 2112.13492, section 3.2).
        value_scale: factor of the values.
        attn_drop: dropout of the attention weights, 0..1.
        proj_drop: dropout of the output, 0..1.

    Raises:
        UsageError: D cannot be split into the heads.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        scale: Scale = "head",
        value_scale: float = 1.0,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if head_dim is None and dim % num_heads:
            raise UsageError(
                f"a width (embed_dim) of {dim} cannot be split into {num_heads} heads", help="change num_heads"
            )
        head_dim = head_dim or dim // num_heads
        self.num_heads, self.head_dim, self.value_scale, self.attn_drop = num_heads, head_dim, value_scale, attn_drop
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias)
        self.proj = nn.Linear(num_heads * head_dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.fixed_scale = dim**-0.5 if scale == "full" else head_dim**-0.5
        self.scale = nn.Parameter(torch.full((num_heads, 1, 1), self.fixed_scale)) if scale == "learned" else None

    def forward(self, x: Tensor, visible: Tensor | None = None, num_queries: int | None = None) -> Tensor:
        """x (B, N, D), visible (B, N) bool -> (B, N, D), or (B, num_queries, D) for the first tokens only.

        No token attends to one that is not visible. Such a token still gets an output, which has no meaning.
        """
        q, k, v = self._queries_keys_values(x, num_queries)  # (B, heads, N or num_queries, head_dim)
        scale = self.fixed_scale
        mask = None if visible is None else visible[:, None, None, :]  # (B, 1, 1, N)
        if self.scale is not None:
            q, scale = q * self.scale.to(q.dtype), 1.0
            mask = _all_but_self(q.shape[2], k.shape[2], mask, x.device)
        if self.value_scale != 1:
            v = v * self.value_scale
        drop = self.attn_drop if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop, scale=scale)
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))

    def weights_and_values(self, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """From the output of `qkv` for all tokens: who attends to whom (B, heads, N, N), and (B, heads, N, head_dim).

        `forward` multiplies them, without ever holding the first; here without dropout and mask.
        """
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.scale is None:
            scores = q @ k.transpose(-1, -2) * self.fixed_scale
        else:
            allowed = _all_but_self(q.shape[2], k.shape[2], None, q.device)
            scores = (q * self.scale.to(q.dtype) @ k.transpose(-1, -2)).masked_fill(~allowed, -torch.inf)
        return scores.softmax(-1), v * self.value_scale

    def _queries_keys_values(self, x: Tensor, num_queries: int | None) -> tuple[Tensor, Tensor, Tensor]:
        if num_queries is None or type(self.qkv) is not nn.Linear:  # a replaced layer cannot be split
            q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
            return q[:, :, :num_queries], k, v
        inner, weight, bias = self.num_heads * self.head_dim, self.qkv.weight, self.qkv.bias
        few = F.linear(x[:, :num_queries], weight[:inner], None if bias is None else bias[:inner])
        all_ = F.linear(x, weight[inner:], None if bias is None else bias[inner:])
        k, v = all_.unflatten(-1, (2, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        return few.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2), k, v


def attention_kernel(device: torch.device, dtype: torch.dtype, *, head_dim: int) -> str:
    """Which kernel PyTorch takes on `device` for training with heads of this width: flash, efficient, cudnn, or math.

    math is the only one that holds all scores (B, heads, N, N), and much slower.
    """
    q = torch.zeros(1, 2, 64, head_dim, device=device, dtype=dtype, requires_grad=True)
    choice = torch._fused_sdp_choice(q, q, q)  # pyright: ignore[reportPrivateImportUsage]
    return SDPBackend(choice).name.lower().removesuffix("_attention")


def _all_but_self(num_queries: int, num_keys: int, mask: Tensor | None, device: torch.device) -> Tensor:
    """(.., num_queries, num_keys) bool: query i does not attend to key i, unless there is no other key."""
    self_ = torch.eye(num_queries, num_keys, dtype=torch.bool, device=device)
    allowed = ~self_ if mask is None else mask & ~self_
    return allowed | (self_ & ~allowed.any(-1, keepdim=True))


class Attention2d(nn.Module):
    """Multi-head self-attention among all H*W positions: (B, C, H, W) -> (B, C, H, W).

    `dim` must be a multiple of `head_dim`. The projection to queries, keys and values has no bias.
    """

    def __init__(self, dim: int, *, head_dim: int = 32) -> None:
        super().__init__()
        if dim % head_dim:
            raise ValueError(f"dim={dim} cannot be split into heads of {head_dim}")
        self.num_heads, self.head_dim = dim // head_dim, head_dim
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
