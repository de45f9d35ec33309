"""The plain ViT family by name, and the parts that the options of a recipe build it from.

docs/models.md lists the options, and these parts document them: `VisionTransformer` and `Prefix`, `build_patch_embed`,
`Attention`, `Block`, `Residual` (drop_path), `PatchDropout`, `build_heads`, `initialize` (head_bias_init). A size
of None is that of the variant; class_token None: a class token with global_pool "token" only. `transformer` is a module
(B, N, D) -> (B, N, D), or its name, in place of the blocks.
"""

import math
from dataclasses import dataclass
from functools import partial

from torch import nn

from vitcli.image_size import ImageSize
from vitcli.layers.activation import Activation
from vitcli.layers.attention import Attention, Scale
from vitcli.layers.embed import PatchEmbedKind, build_patch_embed
from vitcli.layers.heads import build_heads
from vitcli.layers.regularize import DropPathMode, PatchDropMode, PatchDropout
from vitcli.layers.transformer import Block
from vitcli.models.transformers import TransformerShape, build_transformer
from vitcli.models.vision_transformer import Pool, PosEmbedKind, Prefix, VisionTransformer, patch_grid


@dataclass(frozen=True)
class Variant:
    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int


# ViT, table 1, for B, L, H; DeiT (arXiv 2012.12877) for Ti, S; DeiT III for M.
# fmt: off
SIZES = {
    #      dim depth heads
    "ti": (192,  12,  3),
    "s":  (384,  12,  6),
    "m":  (512,  12,  8),
    "b":  (768,  12, 12),
    "l":  (1024, 24, 16),
    "h":  (1280, 32, 16),
}
# fmt: on
PATCH_SIZES = (32, 16, 14)
VARIANTS = {f"vit_{name}_patch{p}": Variant(*sizes, patch_size=p) for name, sizes in SIZES.items() for p in PATCH_SIZES}


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
    embed_dim: int | None = None,
    depth: int | None = None,
    num_heads: int | None = None,
    mlp_ratio: float = 4.0,
    patch_size: int | None = None,
    patch_embed: PatchEmbedKind = "linear",
    patch_norm: bool = False,
    pos_embed: PosEmbedKind = "learned",
    global_pool: Pool = "token",
    fc_norm: bool = True,
    pre_norm: bool = False,
    class_token: bool | None = None,
    distilled: bool = False,
    reg_tokens: int = 0,
    qkv_bias: bool = True,
    attn_scale: Scale = "head",
    head_dim: int | None = None,
    norm_eps: float = 1e-6,
    act_layer: Activation = "gelu",
    final_norm: bool = True,
    pre_logits: int | None = None,
    head_hidden: int | None = None,
    head_bias_init: float = 0.0,
    fine_tune_from: int | None = None,
    pos_drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_mode: DropPathMode = "zero",
    patch_drop_rate: float = 0.0,
    patch_drop_mode: PatchDropMode = "drop",
    transformer: str | nn.Module | None = None,
) -> VisionTransformer:
    """The variant `name` of the table, changed by the options; UsageError if they cannot be combined."""
    variant = VARIANTS[name]
    patch_size = patch_size or variant.patch_size
    dim, depth, num_heads = embed_dim or variant.embed_dim, depth or variant.depth, num_heads or variant.num_heads
    prefix = Prefix(global_pool == "token" if class_token is None else class_token, distilled, reg_tokens)
    num_tokens = prefix.num_tokens + math.prod(patch_grid(img_size, patch_size))
    # fmt: off
    attention = partial(Attention, dim, num_heads, head_dim=head_dim, qkv_bias=qkv_bias, scale=attn_scale,
                        attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)
    block = partial(Block, dim=dim, mlp_ratio=mlp_ratio, norm_eps=norm_eps, act_layer=act_layer,
                    proj_drop=proj_drop_rate, layer_scale_init=layer_scale_init, drop_path_mode=drop_path_mode)
    shape = TransformerShape(dim, depth, num_heads, num_tokens, mlp_ratio)
    rates = (drop_path_rate * i / max(depth - 1, 1) for i in range(depth))
    model = VisionTransformer(
        img_size=img_size,
        patch_embed=build_patch_embed(patch_embed, in_chans, dim, patch_size, patch_norm=patch_norm, norm_eps=norm_eps,
                                      bias=not pre_norm),
        blocks=build_transformer(transformer, shape) if transformer
        else nn.ModuleList(block(attention(), drop_path_rate=rate) for rate in rates),
        norm=nn.LayerNorm(dim, eps=norm_eps) if final_norm else nn.Identity(),
        heads=build_heads(dim, num_classes, pre_logits=pre_logits, hidden_dim=head_hidden,
                          fine_tune_from=fine_tune_from, distilled=distilled, drop_rate=drop_rate),
        prefix=prefix, pos_embed=pos_embed, global_pool=global_pool, fc_norm=fc_norm,
        norm_pre=nn.LayerNorm(dim, eps=norm_eps) if pre_norm else nn.Identity(),
        pos_drop=nn.Dropout(pos_drop_rate),
        patch_drop=PatchDropout(patch_drop_rate, patch_drop_mode, num_prefix_tokens=prefix.num_tokens),
        grad_checkpointing=grad_checkpointing,
    )
    # fmt: on
    initialize(model, head_bias_init=head_bias_init)
    model.hidden_options |= {"num_heads": num_heads, "attn_scale": attn_scale}
    model.hidden_options |= {"norm_eps": norm_eps, "act_layer": act_layer}
    return model


def initialize(model: VisionTransformer, *, head_bias_init: float = 0.0) -> None:
    """First values as in the ViT authors' JAX code: uniform by fan, small positions, a head of zeros.

    Another `transformer` keeps its own.

    Args:
        head_bias_init: value of the head's bias.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith("transformer."):
            _init_linear(module, name)
    for conv in (module for module in model.patch_embed.modules() if isinstance(module, nn.Conv2d)):
        fan_in = conv.weight[0].numel()
        nn.init.trunc_normal_(conv.weight, std=math.sqrt(1 / fan_in) / 0.87962566103423978)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    for tokens in (model.pos_embed, model.dist_token, model.reg_token):
        if tokens is not None:
            nn.init.trunc_normal_(tokens, std=0.02)
    if model.num_classes:
        for last in map(model.get_submodule, model.classifiers):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, head_bias_init)


def _init_linear(linear: nn.Linear, name: str) -> None:
    """Xavier's uniform; queries, keys and values count as three layers; biases of the MLP close to zero."""
    fan_out = linear.out_features // 3 if name.endswith(".qkv") else linear.out_features
    bound = math.sqrt(6 / (linear.in_features + fan_out))
    nn.init.uniform_(linear.weight, -bound, bound)
    if linear.bias is not None:
        nn.init.normal_(linear.bias, std=1e-6) if ".mlp." in name else nn.init.zeros_(linear.bias)
