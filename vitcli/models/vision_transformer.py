"""The plain vision transformer (ViT, arXiv 2010.11929) and its variants, composed of parts.

    image (B, 3, H, W)
      patch_embed   linear, convolutions, shifted patches or hMLP       (B, N, D), N = (H/p) * (W/p)
      positions     learned, sincos2d or none; class and register tokens come first
      patch_drop    in training, some patches are dropped               (B, P+N, D)
      norm_pre      optional LayerNorm (CLIP)                           (B, P+N, D)
      blocks        attention and MLP, or any module of the same shape  (B, P+N, D)
      pooling       class token, mean or maximum of the patches; norm before or after it  (B, D)
      pre_logits    optional layer with tanh                            (B, W), else W = D
      to_latent     the features, for hooks                             (B, W)
      head          linear or two layers, fine_tune                     (B, num_classes)

Parameter names are timm's; `vit_keys` converts others. `vit.create` builds the parts from the options of a recipe. A
mask says which patches take part: no token attends to the others, which equals not having them.
"""

import math
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vitcli.errors import UsageError
from vitcli.image_size import ImageSize, height_and_width, in_words
from vitcli.layers.embed import PatchEmbed, Stem, sincos2d
from vitcli.layers.heads import Heads, Latent
from vitcli.layers.recompute import recompute
from vitcli.layers.regularize import PatchDropout
from vitcli.layers.reparam import has_hooks
from vitcli.models.vit_keys import renamed

PosEmbedKind = Literal["learned", "sincos2d", "none"]
Pool = Literal["token", "avg", "max", "avgmax"]


@dataclass(frozen=True)
class Prefix:
    """The tokens before those of the patches: class, distillation (DeiT), registers (arXiv 2309.16588)."""

    class_token: bool = True
    distilled: bool = False
    reg_tokens: int = 0

    @property
    def num_pooled(self) -> int:
        """The first tokens, which are classified."""
        return self.class_token + self.distilled

    @property
    def num_tokens(self) -> int:
        return self.num_pooled + self.reg_tokens


class VisionTransformer(nn.Module):
    """Images (B, in_chans, H, W) -> logits (B, num_classes), or features (B, D) without a head.

    Args:
        img_size: px, the side of a square or (H, W), multiples of the patch size.
        patch_embed: images -> tokens (B, N, D).
        blocks: an nn.ModuleList of blocks as `layers.transformer.Block`, or one module (B, N, D) -> (B, N, D).
        norm: of the tokens after the last block, or of the pooled patches.
        heads: see `layers.heads.build_heads`.
        prefix: the tokens before the patches.
        pos_embed: "learned", fixed "sincos2d", or "none".
        global_pool: the head sees the class token ("token"), the mean of the patches ("avg"), their maximum ("max"),
            or the average of both ("avgmax").
        fc_norm: whether patches are pooled before the norm, and not after it.
        norm_pre: of the tokens before the first block.
        pos_drop: dropout after the positions.
        patch_drop: see `PatchDropout`.
        grad_checkpointing: recompute the blocks in the backward pass.

    Raises:
        UsageError: a combination that cannot be built.
    """

    #: parameters that are not decayed, by the last part of their name
    no_weight_decay: ClassVar[tuple[str, ...]] = ("pos_embed", "cls_token", "dist_token", "reg_token", "scale")
    #: tensors under the names of any project that `vit_keys` knows -> under this model's
    convert_keys = staticmethod(renamed)

    def __init__(
        self,
        *,
        img_size: ImageSize,
        patch_embed: PatchEmbed | Stem,
        blocks: nn.Module,
        norm: nn.Module,
        heads: Heads,
        prefix: Prefix,
        pos_embed: PosEmbedKind,
        global_pool: Pool,
        fc_norm: bool,
        norm_pre: nn.Module,
        pos_drop: nn.Module,
        patch_drop: PatchDropout,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check_pooling(global_pool, prefix)
        dim, self.img_size, self.num_classes = patch_embed.dim, img_size, heads.num_classes
        self.in_chans, self.patch_size = patch_embed.in_chans, patch_embed.patch_size
        self.grid_size = patch_grid(img_size, patch_embed.patch_size)  # rows, columns
        self.global_pool, self.grad_checkpointing = global_pool, grad_checkpointing
        self.num_pooled, self.num_prefix_tokens = prefix.num_pooled, prefix.num_tokens
        #: what the tensors do not show: weights for other values would load without an error
        self.hidden_options: dict[str, Any] = {"pos_embed": pos_embed}

        self.patch_embed = patch_embed
        self.first_convs = (f"patch_embed.{patch_embed.first_conv}",)
        self.cls_token = _tokens(prefix.class_token, dim)
        self.dist_token = _tokens(prefix.distilled, dim)
        self.reg_token = _tokens(prefix.reg_tokens, dim)
        num_tokens = prefix.num_tokens + math.prod(self.grid_size)
        self.pos_embed = _tokens(num_tokens if pos_embed == "learned" else 0, dim)
        fixed = sincos2d(self.grid_size, dim) if pos_embed == "sincos2d" else None
        self.register_buffer("fixed_pos_embed", fixed, persistent=False)
        self.pos_drop, self.patch_drop, self.norm_pre = pos_drop, patch_drop, norm_pre
        is_list = isinstance(blocks, nn.ModuleList)
        self.transformer = None if is_list else blocks
        self.blocks = blocks if is_list else nn.ModuleList()
        is_last = fc_norm and global_pool != "token"
        self.norm = nn.Identity() if is_last else norm
        self.fc_norm = norm if is_last else nn.Identity()  # timm's name for it
        self.pre_logits = heads.pre_logits
        self.num_features = heads.pre_logits[0].out_features if heads.pre_logits else dim
        self.to_latent, self.to_cls_token = Latent(), Latent()  # (B, num_features); hooks know both names
        self.head_drop, self.head, self.head_dist = heads.drop, heads.head, heads.head_dist
        self.fine_tune, self.classifiers = heads.fine_tune, heads.last_layers

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """images (B, C, H, W), mask (B, H/p, W/p) bool with True = takes part -> (B, num_classes), or the latent.

        The class token always takes part. A sample without any patch is legal.
        """
        latents = self._latents(images, mask)
        logits = self.head(self.head_drop(latents[0]))
        if self.head_dist is not None:
            logits = (logits + self.head_dist(self.head_drop(latents[1]))) / 2
        return self.fine_tune(logits)

    def latent(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """The features (B, D) that the head classifies; of a distilled model those of the class token."""
        return self._latents(images, mask)[0]

    def forward_features(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """All tokens after the last block, and after the norm unless it follows the pooling: (B, P+N, D)."""
        return self.norm(self._encode(*self._embed(images, mask)))

    def features(self, images: Tensor) -> list[Tensor]:
        """The patches after each block as a map: [(B, D, H/p, W/p), ...]; no patch is dropped."""
        x, _ = self._embed(images, None, drop_patches=False)
        maps = []
        for block in [self.transformer] if self.transformer else self.blocks:
            x = block(x)
            maps.append(x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, self.grid_size))
        return maps

    @property
    def num_layers(self) -> int:
        """Number of the groups that `layer_of` distinguishes."""
        return len(self.blocks) + 2

    def layer_of(self, name: str) -> int:
        """Which layer the parameter `name` belongs to, as in timm: 0 the embeddings, i+1 block i, then the head.

        The norm of all tokens belongs to the last block, the norm after pooling to the head.
        """
        if name.startswith(("patch_embed.", "cls_token", "dist_token", "reg_token", "pos_embed", "norm_pre.")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers - 1 - name.startswith("norm.")

    def _embed(self, images: Tensor, mask: Tensor | None, *, drop_patches: bool = True) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, P+N, D) with positions, without those that patch dropout removes, and their visibility."""
        if images.shape[-2:] != height_and_width(self.img_size):
            height, width = height_and_width(self.img_size)
            raise UsageError(
                f"this model takes images of {height} x {width} px, not {images.shape[-2]} x {images.shape[-1]}",
                help="resize them, or create the model with another img_size",
            )
        x = self.patch_embed(images)  # (B, N, D)
        if self.fixed_pos_embed is not None:
            x = x + self.fixed_pos_embed
        tokens = (self.cls_token, self.dist_token, self.reg_token)
        prefix = [t.expand(x.shape[0], -1, -1) for t in tokens if t is not None]
        x = torch.cat([*prefix, x], dim=1) if prefix else x
        if self.pos_embed is not None:
            x = x + self.pos_embed
        x, visible = self.pos_drop(x), self._visible(mask, x)
        x, visible = self.patch_drop(x, visible) if drop_patches else (x, visible)
        return self.norm_pre(x), visible

    def _visible(self, mask: Tensor | None, x: Tensor) -> Tensor | None:
        """(B, P+N) bool: the prefix always, the patches by the mask."""
        if mask is None:
            return None
        expected = (len(x), *self.grid_size)
        if mask.shape != expected or mask.dtype != torch.bool:
            raise UsageError(
                f"the mask is {tuple(mask.shape)} of {mask.dtype}", help=f"give {expected} of torch.bool, True = attend"
            )
        if self.transformer and "mask" not in signature(self.transformer.forward).parameters:
            raise UsageError(f"{type(self.transformer).__name__} takes no mask", help="its forward has no `mask`")
        return torch.cat([mask.new_ones(len(x), self.num_prefix_tokens), mask.flatten(1)], dim=1)

    def _encode(self, x: Tensor, visible: Tensor | None, num_queries: int | None = None) -> Tensor:
        """Apply the blocks; the last one only to the first `num_queries` tokens, because the others are not used."""
        if self.transformer:
            encoded = self.transformer(x) if visible is None else self.transformer(x, mask=visible)
            if encoded.shape != x.shape:
                raise UsageError(
                    f"{type(self.transformer).__name__} returns {tuple(encoded.shape)} for tokens {tuple(x.shape)}",
                    help="a transformer must return tokens of the same number and width",
                )
            return encoded
        if visible is not None and not self.num_prefix_tokens:  # attention over no token is NaN
            visible = visible | ~visible.any(1, keepdim=True)
        for i, block in enumerate(self.blocks):  # hooks in a block expect all tokens
            queries = num_queries if i == len(self.blocks) - 1 and not has_hooks(block) else None
            checkpointing = self.grad_checkpointing and self.training
            x = recompute(block, x, visible, queries) if checkpointing else block(x, visible, queries)
        return x

    def _latents(self, images: Tensor, mask: Tensor | None) -> list[Tensor]:
        """What the heads classify, (B, D) each: one, or of a distilled model the two of its first tokens."""
        x, visible = self._embed(images, mask)
        if self.global_pool == "token":
            x = self._encode(x, visible, self.num_pooled)
            pooled = self.norm(x[:, : self.num_pooled]).unbind(1)
        else:
            pooled = [self.fc_norm(self._pool(self.norm(self._encode(x, visible)), visible))]
        first, *second = (self.pre_logits(token) for token in pooled)
        return [self.to_cls_token(self.to_latent(first)), *second]

    def _pool(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """(B, D): the patches that take part, pooled; zeros where there are none."""
        x = x[:, self.num_prefix_tokens :]
        takes_part = None if visible is None else visible[:, self.num_prefix_tokens :, None]
        match self.global_pool:
            case "max":
                return _max(x, takes_part)
            case "avgmax":
                return 0.5 * (_max(x, takes_part) + _mean(x, takes_part))
            case _:
                return _mean(x, takes_part)


def patch_grid(img_size: ImageSize, patch_size: int) -> tuple[int, int]:
    """Patches along the height and the width of an image; UsageError if it cannot be divided into them."""
    height, width = height_and_width(img_size)
    for side in (height, width):
        if side % patch_size:
            below = side // patch_size * patch_size
            near = f"{below} or {below + patch_size}" if below else str(patch_size)
            raise UsageError(
                f"an image of {in_words(img_size)} is not divisible into patches of {patch_size} px",
                help=f"set image_resize (img_size) to {near}, or another patch_size",
            )
    return height // patch_size, width // patch_size


def _mean(x: Tensor, takes_part: Tensor | None) -> Tensor:
    if takes_part is None:
        return x.mean(1)
    weight = takes_part.to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def _max(x: Tensor, takes_part: Tensor | None) -> Tensor:
    if takes_part is None:
        return x.amax(1)
    return x.masked_fill(~takes_part, -torch.inf).amax(1).masked_fill(~takes_part.any(1), 0)


def _check_pooling(global_pool: Pool, prefix: Prefix) -> None:
    if prefix.distilled and global_pool != "token":
        raise UsageError("a distilled model pools its class and distillation tokens", help="set global_pool: token")
    if global_pool == "token" and not prefix.class_token:
        raise UsageError("pooling the class token needs one", help="set class_token: true, or another global_pool")


def _tokens(count: int, dim: int) -> nn.Parameter | None:
    return nn.Parameter(torch.zeros(1, count, dim)) if count else None
