"""The plain vision transformer (ViT, arXiv 2010.11929) and its descendants, composed of parts.

    image (B, 3, H, W)
      patch_embed   linear, convolutions, shifted patches or hMLP       (B, N, D), N = (H/p) * (W/p)
      positions     learned, sincos2d or none; class and register tokens in front
      patch_drop    in training, some patches are lost                  (B, P+N, D)
      blocks        attention and MLP, or any module of the same shape  (B, P+N, D)
      norm          then the class token, or the mean of the patches    (B, D)
      to_latent     a place for hooks                                   (B, D)
      head          pre_logits, linear, fine_tune                       (B, num_classes)

Names of parameters are timm's; `vit_keys` knows the others'. A mask says which patches take part: the others are seen
by none, which is the same as not having them.
"""

import math
from collections.abc import Mapping
from functools import partial
from inspect import signature
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vitcli.errors import UsageError
from vitcli.layers.attention import Attention, Scale
from vitcli.layers.embed import PatchEmbedKind, build_patch_embed, sincos2d
from vitcli.layers.patch_dropout import PatchDropMode, PatchDropout
from vitcli.layers.recompute import recompute
from vitcli.layers.regularize import DropPathMode
from vitcli.layers.transformer import Block, mlp_head
from vitcli.models.transformers import TransformerShape, build_transformer
from vitcli.models.vit_keys import from_any


class VisionTransformer(nn.Module):
    """Images (B, in_chans, img_size, img_size) -> logits (B, num_classes).

    Args:
        img_size, patch_size: px; the first is a multiple of the second.
        embed_dim: width D of the tokens.
        depth, num_heads, mlp_ratio: number of blocks, heads per block, hidden width of the MLP / D.
        patch_embed: "linear"; "conv" (arXiv 2106.14881), "spt" (2112.13492), "hmlp" (2203.09795).
        patch_norm: LayerNorm before and after a linear patch embedding, as in vit-pytorch.
        pos_embed: "learned", fixed "sincos2d", or "none".
        global_pool: the head sees the class token ("token"), or the mean of the patches ("avg").
        class_token: None: with "token" only.
        distilled: a second token with a head of its own (DeiT); the output is the mean of both.
        reg_tokens: number of register tokens (arXiv 2309.16588).
        qkv_bias, attn_scale, head_dim: see `Attention`; "learned" is locality self-attention.
        layer_scale_init: None: no layer scale.
        norm_eps, final_norm: of all LayerNorms; whether there is one after the last block.
        pre_logits: width of a layer with tanh before the head (ViT's pre-training head); None or 0: none.
        head_hidden: hidden width of a head with two layers; None or 0: one layer.
        head_bias_init: first value of the head's bias; its weights start at zero.
        fine_tune_from: the head has so many classes, and a linear layer on its logits leads to num_classes.
        drop_rate: dropout before the head.
        pos_drop_rate, proj_drop_rate, attn_drop_rate: dropout after the positions, after each linear layer of the
            blocks but qkv, and of the attention weights.
        drop_path_rate, drop_path_mode: stochastic depth, growing linearly from 0; see `Residual`.
        patch_drop_rate, patch_drop_mode: see `PatchDropout`.
        grad_checkpointing: recompute the blocks in the backward pass.
        transformer: a module (B, N, D) -> (B, N, D), or its name, in place of the blocks.

    Raises:
        UsageError: a combination that cannot be built.
    """

    #: parameters that are not decayed, by the last part of their name
    no_weight_decay: ClassVar[tuple[str, ...]] = ("pos_embed", "cls_token", "dist_token", "reg_token", "scale")

    def __init__(
        self,
        *,
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        patch_embed: PatchEmbedKind = "linear",
        patch_norm: bool = False,
        pos_embed: Literal["learned", "sincos2d", "none"] = "learned",
        global_pool: Literal["token", "avg"] = "token",
        class_token: bool | None = None,
        distilled: bool = False,
        reg_tokens: int = 0,
        qkv_bias: bool = True,
        attn_scale: Scale = "head",
        head_dim: int | None = None,
        layer_scale_init: float | None = None,
        norm_eps: float = 1e-6,
        final_norm: bool = True,
        pre_logits: int | None = None,
        head_hidden: int | None = None,
        head_bias_init: float = 0.0,
        fine_tune_from: int | None = None,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        drop_path_mode: DropPathMode = "zero",
        patch_drop_rate: float = 0.0,
        patch_drop_mode: PatchDropMode = "drop",
        grad_checkpointing: bool = False,
        transformer: str | nn.Module | None = None,
    ) -> None:
        super().__init__()
        class_token = global_pool == "token" if class_token is None else class_token
        self.img_size, self.patch_size, self.in_chans, self.num_classes = img_size, patch_size, in_chans, num_classes
        self.num_features, self.global_pool, self.grad_checkpointing = embed_dim, global_pool, grad_checkpointing
        self.num_heads, self.attn_scale, self.norm_eps = num_heads, attn_scale, norm_eps
        self.grid_size = _grid_size(img_size, patch_size)  # rows, columns
        self.num_pooled = class_token + distilled  # the first tokens, each with a head of its own
        self.num_prefix_tokens = self.num_pooled + reg_tokens
        num_tokens = self.num_prefix_tokens + math.prod(self.grid_size)
        _check(embed_dim, num_heads if head_dim is None else 1, global_pool, self.num_pooled, distilled)

        self.patch_embed = build_patch_embed(patch_embed, in_chans, embed_dim, patch_size, patch_norm, norm_eps)
        self.first_convs = (f"patch_embed.{self.patch_embed.first_conv}",)
        self.cls_token = _tokens(class_token, embed_dim)
        self.dist_token = _tokens(distilled, embed_dim)
        self.reg_token = _tokens(reg_tokens, embed_dim)
        self.pos_embed = _tokens(num_tokens if pos_embed == "learned" else 0, embed_dim)
        fixed = sincos2d(self.grid_size, embed_dim) if pos_embed == "sincos2d" else None
        self.register_buffer("fixed_pos_embed", fixed, persistent=False)
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.patch_drop = PatchDropout(patch_drop_rate, patch_drop_mode, num_prefix_tokens=self.num_prefix_tokens)

        # fmt: off
        attention = partial(Attention, embed_dim, num_heads, head_dim=head_dim, qkv_bias=qkv_bias, scale=attn_scale,
                            attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)
        block = partial(Block, dim=embed_dim, mlp_ratio=mlp_ratio, norm_eps=norm_eps, proj_drop=proj_drop_rate,
                        layer_scale_init=layer_scale_init, drop_path_mode=drop_path_mode)
        # fmt: on
        if isinstance(transformer, str):
            shape = TransformerShape(embed_dim, depth, num_heads, num_tokens, mlp_ratio)
            transformer = build_transformer(transformer, shape)
        self.transformer = transformer
        rates = [] if transformer else [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(block(attention(), drop_path_rate=rate) for rate in rates)

        norm = nn.LayerNorm(embed_dim, eps=norm_eps) if final_norm else nn.Identity()
        self.norm = norm if global_pool == "token" else nn.Identity()
        self.fc_norm = norm if global_pool == "avg" else nn.Identity()  # behind the mean, as in timm
        self.to_latent, self.to_cls_token = nn.Identity(), nn.Identity()  # (B, D); hooks know both names
        self._add_heads(2 if distilled else 1, pre_logits, head_hidden, fine_tune_from, drop_rate)
        self._init_weights(head_bias_init)

    def _add_heads(
        self, count: int, pre_logits: int | None, hidden: int | None, fine_tune_from: int | None, drop_rate: float
    ) -> None:
        """What leads from latents (B, D) to logits; the second head sees the distillation token."""
        width, last = pre_logits or self.num_features, ".2" if hidden else ""
        kept = fine_tune_from if self.num_classes else None
        head_classes = kept or self.num_classes
        self.pre_logits = _pre_logits(self.num_features, pre_logits)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = _head(width, hidden, head_classes)
        self.head_dist = _head(width, hidden, head_classes) if count == 2 else None
        self.fine_tune = nn.Linear(head_classes, self.num_classes) if kept else nn.Identity()
        self.classifiers = tuple(f"{name}{last}" for name in ("head", "head_dist")[:count])

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """images (B, C, H, W), mask (B, H/p, W/p) bool with True = takes part -> (B, num_classes).

        The class token always takes part. A sample without any patch is legal.
        """
        x, visible = self._embed(images, mask)
        pooled = self.num_pooled if self.global_pool == "token" else None
        x = self._encode(x, visible, pooled)
        return self._classify(x, visible)

    def forward_features(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """All tokens behind the last block, and behind the norm if the class token is pooled: (B, P+N, D)."""
        return self.norm(self._encode(*self._embed(images, mask)))

    def features(self, images: Tensor) -> list[Tensor]:
        """The patches behind each block as a map: [(B, D, H/p, W/p), ...]; no patch is dropped."""
        x, _ = self._embed(images, None, drop_patches=False)
        maps = []
        for block in [self.transformer] if self.transformer else self.blocks:
            x = block(x)
            maps.append(x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, self.grid_size))
        return maps

    def convert_keys(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors` under this model's names, wherever they come from."""
        return from_any(tensors)

    @property
    def hidden_options(self) -> dict[str, Any]:
        """What the tensors do not show, so that weights for other values would load without a word."""
        pos_embed = "learned" if self.pos_embed is not None else "none" if self.fixed_pos_embed is None else "sincos2d"
        hidden = {"num_heads": self.num_heads, "attn_scale": self.attn_scale, "norm_eps": self.norm_eps}
        return hidden | {"pos_embed": pos_embed}

    @property
    def num_layers(self) -> int:
        """Number of the groups that `layer_of` tells apart."""
        return len(self.blocks) + 2

    def layer_of(self, name: str) -> int:
        """Which layer the parameter `name` belongs to, as in timm: 0 the embeddings, i+1 block i, then the head.

        The norm of all tokens counts as part of the last block, the norm behind the mean as part of the head.
        """
        if name.startswith(("patch_embed.", "cls_token", "dist_token", "reg_token", "pos_embed")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers - 1 - name.startswith("norm.")

    def _embed(self, images: Tensor, mask: Tensor | None, *, drop_patches: bool = True) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, P+N, D) with positions, less those that patch dropout removes, and their visibility."""
        if images.shape[-2:] != (self.img_size, self.img_size):
            raise UsageError(
                f"this model takes images of {self.img_size} x {self.img_size} px, "
                f"not {images.shape[-2]} x {images.shape[-1]}",
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
        return self.patch_drop(x, visible) if drop_patches else (x, visible)

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
        """The blocks; of the last one only the first `num_queries` tokens, since nobody looks at the others."""
        if self.transformer:
            encoded = self.transformer(x) if visible is None else self.transformer(x, mask=visible)
            if encoded.shape != x.shape:
                message = f"{type(self.transformer).__name__} makes {tuple(encoded.shape)} of tokens {tuple(x.shape)}"
                raise UsageError(message, help="a transformer returns as many tokens as it is given, equally wide")
            return encoded
        if visible is not None and not self.num_prefix_tokens:  # attention among nothing is not a number
            visible = visible | ~visible.any(1, keepdim=True)
        for i, block in enumerate(self.blocks):
            queries = num_queries if i == len(self.blocks) - 1 and not _is_watched(block) else None
            checkpointing = self.grad_checkpointing and self.training
            x = recompute(block, x, visible, queries) if checkpointing else block(x, visible, queries)
        return x

    def _classify(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """Tokens behind the last block -> logits."""
        if self.head_dist is not None:
            x = self.norm(x)
            latent, distilled = self.to_cls_token(self.to_latent(x[:, 0])), x[:, 1]
            logits = (self.head(self._before_head(latent)) + self.head_dist(self._before_head(distilled))) / 2
        else:
            latent = self.norm(x[:, 0]) if self.global_pool == "token" else self.fc_norm(self._mean(x, visible))
            logits = self.head(self._before_head(self.to_cls_token(self.to_latent(latent))))
        return self.fine_tune(logits)

    def _mean(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """(B, D) mean of the patches that take part; zeros where there are none."""
        x = x[:, self.num_prefix_tokens :]
        if visible is None:
            return x.mean(1)
        weight = visible[:, self.num_prefix_tokens :, None].to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1).clamp(min=1)

    def _before_head(self, latent: Tensor) -> Tensor:
        return self.head_drop(self.pre_logits(latent))

    def _init_weights(self, head_bias_init: float) -> None:
        """The initialization of the ViT authors' JAX code: uniform by fan, small positions, a head of zeros."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("transformer."):
                _init_linear(module, name)
        for conv in (module for module in self.patch_embed.modules() if isinstance(module, nn.Conv2d)):
            fan_in = conv.weight[0].numel()
            nn.init.trunc_normal_(conv.weight, std=math.sqrt(1 / fan_in) / 0.87962566103423978)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for token in (self.dist_token, self.reg_token):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)
        for name in self.classifiers:
            last = self.get_submodule(name)
            if isinstance(last, nn.Linear):
                nn.init.zeros_(last.weight)
                nn.init.constant_(last.bias, head_bias_init)


def _grid_size(img_size: int, patch_size: int) -> tuple[int, int]:
    if img_size % patch_size:
        below = img_size // patch_size * patch_size
        near = f"{below} or {below + patch_size}" if below else str(patch_size)
        raise UsageError(
            f"an image of {img_size} px is not divisible into patches of {patch_size} px",
            help=f"set image_resize (img_size) to {near}, or another patch_size",
        )
    return img_size // patch_size, img_size // patch_size


def _check(embed_dim: int, num_heads: int, global_pool: str, num_pooled: int, distilled: bool) -> None:
    if embed_dim % num_heads:
        raise UsageError(
            f"a width (embed_dim) of {embed_dim} cannot be split into {num_heads} heads", help="change num_heads"
        )
    if distilled and global_pool != "token":
        raise UsageError("a distilled model pools its class and distillation tokens", help="set global_pool: token")
    if global_pool == "token" and num_pooled != 1 + distilled:
        raise UsageError("pooling the class token needs one", help="set class_token: true, or global_pool: avg")


def _is_watched(block: nn.Module) -> bool:
    """Whether somebody's hooks wait for all tokens in `block`."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in block.modules())


def _tokens(count: int, dim: int) -> nn.Parameter | None:
    return nn.Parameter(torch.zeros(1, count, dim)) if count else None


def _pre_logits(dim: int, width: int | None) -> nn.Sequential:
    layer = nn.Sequential()
    if width:
        layer.add_module("fc", nn.Linear(dim, width))
        layer.add_module("act", nn.Tanh())
    return layer


def _head(dim: int, hidden_dim: int | None, num_classes: int) -> nn.Module:
    if not num_classes:
        return nn.Identity()
    return mlp_head(dim, hidden_dim, num_classes, "gelu") if hidden_dim else nn.Linear(dim, num_classes)


def _init_linear(linear: nn.Linear, name: str) -> None:
    """Xavier's uniform; queries, keys and values count as three layers; biases of the MLP barely above zero."""
    fan_out = linear.out_features // 3 if name.endswith(".qkv") else linear.out_features
    bound = math.sqrt(6 / (linear.in_features + fan_out))
    nn.init.uniform_(linear.weight, -bound, bound)
    if linear.bias is not None:
        nn.init.normal_(linear.bias, std=1e-6) if ".mlp." in name else nn.init.zeros_(linear.bias)
