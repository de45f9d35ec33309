"""The plain ViT family by name: widths, depths and patch sizes of `VisionTransformer`."""

from dataclasses import asdict, dataclass

from torch import nn

from vitcli.models.vision_transformer import VisionTransformer


@dataclass(frozen=True)
class Variant:
    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int


# Widths, depths and heads: ViT, table 1, for B, L, H; DeiT (arXiv 2012.12877) for Ti, S; DeiT III for M.
# fmt: off
VARIANTS = {
    #                            dim depth heads patch
    "vit_ti_patch32": Variant(   192,  12,  3,  32),
    "vit_ti_patch16": Variant(   192,  12,  3,  16),
    "vit_ti_patch14": Variant(   192,  12,  3,  14),
    "vit_s_patch32":  Variant(   384,  12,  6,  32),
    "vit_s_patch16":  Variant(   384,  12,  6,  16),
    "vit_s_patch14":  Variant(   384,  12,  6,  14),
    "vit_m_patch32":  Variant(   512,  12,  8,  32),
    "vit_m_patch16":  Variant(   512,  12,  8,  16),
    "vit_m_patch14":  Variant(   512,  12,  8,  14),
    "vit_b_patch32":  Variant(   768,  12, 12,  32),
    "vit_b_patch16":  Variant(   768,  12, 12,  16),
    "vit_b_patch14":  Variant(   768,  12, 12,  14),
    "vit_l_patch32":  Variant(  1024,  24, 16,  32),
    "vit_l_patch16":  Variant(  1024,  24, 16,  16),
    "vit_l_patch14":  Variant(  1024,  24, 16,  14),
    "vit_h_patch32":  Variant(  1280,  32, 16,  32),
    "vit_h_patch16":  Variant(  1280,  32, 16,  16),
    "vit_h_patch14":  Variant(  1280,  32, 16,  14),
}
# fmt: on


def create(
    name: str,
    *,
    num_classes: int,
    in_chans: int,
    img_size: int,
    drop_rate: float,
    drop_path_rate: float,
    layer_scale_init: float | None,
    grad_checkpointing: bool,
    embed_dim: int | None = None,
    depth: int | None = None,
    num_heads: int | None = None,
    mlp_ratio: float | None = None,
    patch_size: int | None = None,
    patch_embed: str | None = None,
    patch_norm: bool | None = None,
    pos_embed: str | None = None,
    global_pool: str | None = None,
    class_token: bool | None = None,
    distilled: bool | None = None,
    reg_tokens: int | None = None,
    qkv_bias: bool | None = None,
    attn_scale: str | None = None,
    head_dim: int | None = None,
    norm_eps: float | None = None,
    final_norm: bool | None = None,
    pre_logits: int | None = None,
    head_hidden: int | None = None,
    head_bias_init: float | None = None,
    fine_tune_from: int | None = None,
    pos_drop_rate: float | None = None,
    proj_drop_rate: float | None = None,
    attn_drop_rate: float | None = None,
    drop_path_mode: str | None = None,
    patch_drop_rate: float | None = None,
    patch_drop_mode: str | None = None,
    transformer: str | nn.Module | None = None,
) -> VisionTransformer:
    """The variant `name` of the table, changed by whatever is not None; see `VisionTransformer` for the meaning."""
    given = {key: value for key, value in locals().items() if key != "name" and value is not None}
    return VisionTransformer(**{**asdict(VARIANTS[name]), **given})
