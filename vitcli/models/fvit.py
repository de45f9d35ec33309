"""F-ViT (le0x99/fast-vision-transformers): raw patches as tokens, norm after each residual, ReLU, mean of the tokens.

    image (B, 3, H, H)
      unfold        G x G patches, not projected            (B, T, E), T = G*G, E = 3 * (H/G)^2
      pos_embed     learned, added                          (B, T, E)
      patch_drop    in training, some tokens are dropped    (B, T, E)
      blocks        attention and MLP                       (B, T, E)
      mean, to_latent                                       (B, E)
      head          one layer, or two with ReLU             (B, num_classes)

Scores are scaled by the full width, E^-0.5, and the values by E^-0.25. docs/models.md lists the original's names.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitcli.errors import UsageError
from vitcli.image_size import ImageSize, height_and_width, in_words
from vitcli.layers.attention import Attention
from vitcli.layers.embed import patches
from vitcli.layers.heads import Latent, mlp_head
from vitcli.layers.recompute import recompute
from vitcli.layers.regularize import PatchDropMode, PatchDropout
from vitcli.layers.transformer import PostNormBlock


def create(
    name: str,
    *,
    num_classes: int,
    in_chans: int,
    img_size: ImageSize,
    drop_rate: float,
    drop_path_rate: float,
    layer_scale_init: float | None,
    grad_checkpointing: bool,
    grid_size: int | None = None,
    embed_dim: int | None = None,
    depth: int | None = None,
    num_heads: int | None = None,
    mlp_ratio: float | None = None,
    head_hidden: int | None = None,
    patch_drop_rate: float | None = None,
    patch_drop_mode: PatchDropMode | None = None,
    auto_encode: bool | None = None,
) -> "FViT":
    """F-ViT with the published sizes, changed by the options that are not None; see `FViT` for their meaning."""
    given = {key: value for key, value in locals().items() if key != "name" and value is not None}
    for absent in ("drop_path_rate", "layer_scale_init"):
        if given.pop(absent, 0):
            raise UsageError(f"{name} has no {absent}", help="remove it")
    return FViT(**given)


# (the original, ours): parts of keys
PARTS = (
    ("contextualize.", "blocks."),
    (".attention.W_q.", ".attn.qkv."),
    (".attention.W_u.", ".attn.proj."),
    (".ff.0.", ".mlp.fc1."),
    (".ff.2.", ".mlp.fc2."),
)


def from_original(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` with the original's names replaced by ours; other names stay as they are."""
    if "pos_emb.weight" not in tensors:
        return dict(tensors)
    converted = {}
    for key, tensor in tensors.items():
        if key == "pos_emb.weight":
            converted["pos_embed"] = tensor.unsqueeze(0)
        elif not key.endswith((".W_k.weight", ".W_v.weight")):
            if key.endswith(".W_q.weight"):
                tensor = torch.cat([tensors[key.replace("W_q", f"W_{part}")] for part in "qkv"])
            for theirs, ours in PARTS:
                key = key.replace(theirs, ours)
            converted[key] = tensor
    return converted


class FViT(nn.Module):
    """Images (B, in_chans, H, W), or encoded patches (B, T, E) -> logits (B, num_classes), or features.

    Args:
        img_size: px, the side of a square or (H, W), multiples of grid_size.
        grid_size: patches along each side.
        auto_encode: False: the input is a batch of encoded patches (B, grid_size^2, embed_dim).
        embed_dim: E of encoded patches; with images it follows from the patch.
        depth, num_heads, mlp_ratio: number of blocks, heads per block, hidden width of the MLP / E.
        num_classes: 0: no head, the model returns the latent (B, E).
        head_hidden: hidden width of the head; None: 4 * E; 0: a head of one layer.
        drop_rate: dropout of the whole stream after each norm.
        patch_drop_rate, patch_drop_mode: see `PatchDropout`.
        grad_checkpointing: recompute the blocks in the backward pass.

    Raises:
        UsageError: sizes that do not match.
    """

    first_convs: ClassVar[tuple[str, ...]] = ()
    no_weight_decay: ClassVar[tuple[str, ...]] = ("pos_embed",)
    #: the names in the original's documentation and code
    training_mode = train_mode = nn.Module.train
    eval_mode = nn.Module.eval
    convert_keys = staticmethod(from_original)

    def __init__(
        self,
        *,
        img_size: ImageSize = 32,
        grid_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 10,
        auto_encode: bool = True,
        embed_dim: int | None = None,
        depth: int = 4,
        num_heads: int = 8,
        mlp_ratio: float = 2.0,
        head_hidden: int | None = None,
        drop_rate: float = 0.0,
        patch_drop_rate: float = 0.0,
        patch_drop_mode: PatchDropMode = "zero",
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.img_size, self.in_chans, self.num_classes, self.auto_encode = img_size, in_chans, num_classes, auto_encode
        self.grid_size, self.num_prefix_tokens, self.grad_checkpointing = (grid_size, grid_size), 0, grad_checkpointing
        self.patch_size = tuple(side // grid_size for side in height_and_width(img_size))
        dim = self.num_features = _width(img_size, grid_size, in_chans, embed_dim, num_heads, auto_encode)
        self.pos_embed = nn.Parameter(torch.randn(1, grid_size**2, dim))
        self.patch_drop = PatchDropout(patch_drop_rate, patch_drop_mode)
        self.blocks = nn.ModuleList(
            PostNormBlock(
                Attention(dim, num_heads, qkv_bias=False, scale="full", value_scale=dim**-0.25),
                dim,
                mlp_ratio=mlp_ratio,
                drop_rate=drop_rate,
            )
            for _ in range(depth)
        )
        self.to_latent, self.to_cls_token = Latent(), Latent()  # (B, E); hooks know both names
        hidden = 4 * dim if head_hidden is None else head_hidden
        self.head: nn.Module = nn.Identity()
        if num_classes:
            self.head = mlp_head(dim, hidden, num_classes, nn.ReLU) if hidden else nn.Linear(dim, num_classes)
        self.classifiers = ("head.2",) if hidden else ("head",)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.latent(images))

    def latent(self, images: Tensor) -> Tensor:
        """The features that the head classifies: (B, E)."""
        return self.to_cls_token(self.to_latent(self.forward_features(images).mean(1)))

    def forward_features(self, images: Tensor) -> Tensor:
        """The tokens after the last block: (B, T, E)."""
        x, _ = self.patch_drop(self._embed(images))
        for block in self.blocks:
            x = recompute(block, x) if self.grad_checkpointing and self.training else block(x)
        return x

    def features(self, images: Tensor) -> list[Tensor]:
        """The tokens after each block as a map: [(B, E, G, G), ...]; no patch is dropped."""
        x, maps = self._embed(images), []
        for block in self.blocks:
            x = block(x)
            maps.append(x.transpose(1, 2).unflatten(2, self.grid_size))
        return maps

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> patches (B, T, E) in the order of `F.unfold`, without positions."""
        expected = (self.in_chans, *height_and_width(self.img_size))
        if images.ndim != 4 or images.shape[-2:] != expected[-2:]:
            size = f"(B, {', '.join(map(str, expected))})"
            raise UsageError(f"this model takes images {size}, not {tuple(images.shape)}")
        return patches(images, self.patch_size)

    @property
    def num_layers(self) -> int:
        """Number of the groups that `layer_of` distinguishes."""
        return len(self.blocks) + 2

    def layer_of(self, name: str) -> int:
        """Which layer the parameter `name` belongs to: 0 the positions, i+1 block i, then the head."""
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return 0 if name == "pos_embed" else self.num_layers - 1

    def _embed(self, x: Tensor) -> Tensor:
        if self.auto_encode:
            x = self.encode(x)
        elif x.shape[1:] != self.pos_embed.shape[1:]:
            raise UsageError(
                f"this model takes encoded patches (B, {', '.join(map(str, self.pos_embed.shape[1:]))}), "
                f"not {tuple(x.shape)}"
            )
        return x + self.pos_embed


def _width(
    img_size: ImageSize, grid_size: int, in_chans: int, embed_dim: int | None, num_heads: int, auto_encode: bool
) -> int:
    sides = height_and_width(img_size)
    width = in_chans * math.prod(side // grid_size for side in sides) if auto_encode else embed_dim
    if width is None:
        raise UsageError("with auto_encode False the width of a patch is not known", help="set embed_dim")
    if auto_encode and any(side % grid_size for side in sides):
        raise UsageError(f"an image of {in_words(img_size)} is not divisible into a grid of {grid_size} x {grid_size}")
    if embed_dim not in (None, width):
        raise UsageError(f"patches are not projected: embed_dim is {width} here, not {embed_dim}", help="remove it")
    if width % num_heads:
        raise UsageError(f"patches of {width} values cannot be split into {num_heads} heads", help="change num_heads")
    return width
