"""The blocks of a transformer: attention and a feed-forward network, each with a residual connection."""

from collections.abc import Iterator

from torch import Tensor, nn

from vitcli.layers.activation import ACTIVATIONS, Activation
from vitcli.layers.attention import Attention
from vitcli.layers.regularize import DropPathMode, LayerScale, Residual
from vitcli.layers.reparam import fold_layer_norm, fold_scale, is_plain


class Mlp(nn.Module):
    """Two linear layers with an activation in between: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden_dim: int, *, act_layer: Activation = "gelu", drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = ACTIVATIONS[act_layer]()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(x)))))


class Block(nn.Module):
    """Norm before each branch, the form of ViT (arXiv 2010.11929, eq. 2 and 3). Parameter names are timm's.

    Args:
        attention: the attention layer (B, N, D) -> (B, N, D).
        dim: D.
        mlp_ratio: hidden width of the feed-forward network / D.
        norm_eps: epsilon of both LayerNorms.
        act_layer: the activation of the feed-forward network.
        layer_scale_init: first value of the layer scales; None: no layer scale.
        proj_drop: dropout after both layers of the feed-forward network, 0..1.
        drop_path_rate, drop_path_mode: stochastic depth, see `Residual`.
    """

    def __init__(
        self,
        attention: Attention,
        dim: int,
        *,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
        act_layer: Activation = "gelu",
        layer_scale_init: float | None = None,
        proj_drop: float = 0.0,
        drop_path_rate: float = 0.0,
        drop_path_mode: DropPathMode = "zero",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = attention
        self.ls1 = _layer_scale(dim, layer_scale_init)
        self.drop_path1 = Residual(drop_path_rate, drop_path_mode)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.ls2 = _layer_scale(dim, layer_scale_init)
        self.drop_path2 = Residual(drop_path_rate, drop_path_mode)

    def forward(self, x: Tensor, visible: Tensor | None = None, num_queries: int | None = None) -> Tensor:
        """x (B, N, D), visible (B, N) bool -> (B, N, D), or (B, num_queries, D) for the first tokens only."""

        def attend(x: Tensor, visible: Tensor | None) -> Tensor:
            return self.ls1(self.attn(self.norm1(x), visible, num_queries))

        x = self.drop_path1(x, attend, visible, num_queries)
        return self.drop_path2(x, lambda x, _: self.ls2(self.mlp(self.norm2(x))))

    def fold_in_place(self) -> None:
        if is_plain(self.attn, Attention):
            self.norm1 = fold_layer_norm(self.norm1, self.attn.qkv)
            self.ls1 = fold_scale(self.ls1, self.attn.proj)
        if is_plain(self.mlp, Mlp):
            self.norm2 = fold_layer_norm(self.norm2, self.mlp.fc1)
            self.ls2 = fold_scale(self.ls2, self.mlp.fc2)

    def norms_and_linears(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Each norm that full folding moves, as far as possible, into the layer after it."""
        if is_plain(self.attn, Attention):
            yield self.norm1, self.attn.qkv
        if is_plain(self.mlp, Mlp):
            yield self.norm2, self.mlp.fc1


class PostNormBlock(nn.Module):
    """Norm after each residual, then dropout of the whole stream, with ReLU: F-ViT's block. (B, N, D) -> (B, N, D)."""

    def __init__(self, attention: Attention, dim: int, *, mlp_ratio: float, drop_rate: float) -> None:
        super().__init__()
        self.attn = attention
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer="relu")
        self.norm2 = nn.LayerNorm(dim)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        x = self.drop(self.norm1(x + self.attn(x, visible)))
        return self.drop(self.norm2(x + self.mlp(x)))


def _layer_scale(dim: int, init: float | None) -> nn.Module:
    return nn.Identity() if init is None else LayerScale(dim, init=init)
