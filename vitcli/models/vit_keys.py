"""The names that other projects give to a ViT's parameters, and timm's, which are ours; recognized by content.

torchvision   encoder.layers.encoder_layer_0.self_attention.in_proj_weight   both ways
hf            vit.encoder.layer.0.attention.attention.query.weight           both ways (Hugging Face transformers)
google        Transformer/encoderblock_0/LayerNorm_0/scale                   both ways, see `vit_google`
vit-pytorch   transformer.layers.0.0.to_qkv.weight                           from, see `vit_pytorch_keys`
mindcv        backbone.transformer.layers.0.0.cell.1.qkv.weight              from
timm          blocks.0.attn.qkv.weight                                       with DeiT's and DeiT III's own words
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from vitcli.errors import WeightsError
from vitcli.models.renaming import Table, to_ours, to_theirs
from vitcli.models.vit_google import from_google, is_google, join_qkv, split_qkv
from vitcli.models.vit_pytorch_keys import from_vit_pytorch, is_vit_pytorch

Family = Literal["torchvision", "hf", "google", "vit-pytorch", "mindcv", "timm"]

TORCHVISION: Table = (
    ("class_token", "cls_token"),
    ("encoder.pos_embedding", "pos_embed"),
    ("conv_proj", "patch_embed.proj"),
    ("encoder.layers.encoder_layer_{i}.ln_1", "blocks.{i}.norm1"),
    ("encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight", "blocks.{i}.attn.qkv.weight"),
    ("encoder.layers.encoder_layer_{i}.self_attention.in_proj_bias", "blocks.{i}.attn.qkv.bias"),
    ("encoder.layers.encoder_layer_{i}.self_attention.out_proj", "blocks.{i}.attn.proj"),
    ("encoder.layers.encoder_layer_{i}.ln_2", "blocks.{i}.norm2"),
    ("encoder.layers.encoder_layer_{i}.mlp.0", "blocks.{i}.mlp.fc1"),
    ("encoder.layers.encoder_layer_{i}.mlp.3", "blocks.{i}.mlp.fc2"),
    ("encoder.layers.encoder_layer_{i}.mlp.linear_1", "blocks.{i}.mlp.fc1"),  # files before torchvision 0.14
    ("encoder.layers.encoder_layer_{i}.mlp.linear_2", "blocks.{i}.mlp.fc2"),
    ("encoder.ln", "norm"),
    ("heads.pre_logits", "pre_logits.fc"),
    ("heads.head", "head"),
)
#: without the beginning "vit." or "deit."; "q", "k" and "v" are the three parts of our qkv
HF: Table = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.distillation_token", "dist_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layer.{i}.layernorm_before", "blocks.{i}.norm1"),
    ("encoder.layer.{i}.attention.attention.query", "blocks.{i}.attn.q"),
    ("encoder.layer.{i}.attention.attention.key", "blocks.{i}.attn.k"),
    ("encoder.layer.{i}.attention.attention.value", "blocks.{i}.attn.v"),
    ("encoder.layer.{i}.attention.output.dense", "blocks.{i}.attn.proj"),
    ("encoder.layer.{i}.layernorm_after", "blocks.{i}.norm2"),
    ("encoder.layer.{i}.intermediate.dense", "blocks.{i}.mlp.fc1"),
    ("encoder.layer.{i}.output.dense", "blocks.{i}.mlp.fc2"),
    ("layernorm", "norm"),
    ("pooler.dense", "pre_logits.fc"),
    # what transformers 5 calls the same modules in memory
    ("layers.{i}.layernorm_before", "blocks.{i}.norm1"),
    ("layers.{i}.attention.q_proj", "blocks.{i}.attn.q"),
    ("layers.{i}.attention.k_proj", "blocks.{i}.attn.k"),
    ("layers.{i}.attention.v_proj", "blocks.{i}.attn.v"),
    ("layers.{i}.attention.o_proj", "blocks.{i}.attn.proj"),
    ("layers.{i}.layernorm_after", "blocks.{i}.norm2"),
    ("layers.{i}.mlp.fc1", "blocks.{i}.mlp.fc1"),
    ("layers.{i}.mlp.fc2", "blocks.{i}.mlp.fc2"),
)
HF_HEADS: Table = (
    ("classifier", "head"),
    ("cls_classifier", "head"),
    ("distillation_classifier", "head_dist"),
)
#: MindCV up to 0.2, behind `mindspore`'s renaming of gamma and beta; later files have timm's names but for the head
MINDCV: Table = (
    ("backbone.cls", "cls_token"),
    ("backbone.cls_token", "cls_token"),
    ("backbone.pos_embedding", "pos_embed"),
    ("backbone.patch_embedding.conv", "patch_embed.proj"),
    ("backbone.transformer.layers.{i}.0.cell.0", "blocks.{i}.norm1"),
    ("backbone.transformer.layers.{i}.0.cell.1.qkv", "blocks.{i}.attn.qkv"),
    ("backbone.transformer.layers.{i}.0.cell.1.out", "blocks.{i}.attn.proj"),
    ("backbone.transformer.layers.{i}.1.cell.0", "blocks.{i}.norm2"),
    ("backbone.transformer.layers.{i}.1.cell.1.dense1", "blocks.{i}.mlp.fc1"),
    ("backbone.transformer.layers.{i}.1.cell.1.dense2", "blocks.{i}.mlp.fc2"),
    ("backbone.norm", "norm"),
    ("head.classifier.0.classifier", "pre_logits.fc"),
    ("head.classifier.1.classifier", "head"),
    ("head.classifier", "head"),
)
#: timm's own, and what DeiT III's published files and MindCV's later ones call otherwise
TIMM: Table = (
    ("blocks.{i}.gamma_1", "blocks.{i}.ls1.gamma"),
    ("blocks.{i}.gamma_2", "blocks.{i}.ls2.gamma"),
    *MINDCV[-3:],
)


def family_of(names: Iterable[str]) -> Family | None:
    """Whose names they are; None if a ViT's are not recognized."""
    names = set(names)
    if is_google(names):
        return "google"
    if is_vit_pytorch(names):
        return "vit-pytorch"
    if "conv_proj.weight" in names:
        return "torchvision"
    if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in names):
        return "hf"
    if "backbone.patch_embedding.conv.weight" in names:
        return "mindcv"
    stems = ("patch_embed.proj.weight", "patch_embed.proj.0.weight")
    block = ("blocks.0.norm1.weight", "blocks.0.attn.qkv.weight")  # fully folded, its norms have no weights
    return "timm" if names.intersection(block) and names.intersection(stems) else None


def from_any(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` under our names and in our shapes; names that no table knows stay as they are.

    Positions without rows for the class and register tokens (DeiT III, timm's `no_embed_class`) get rows of zeros,
    which is the same sum.
    """
    family = family_of(tensors)
    if family == "google":
        converted = from_google(tensors)
    elif family == "vit-pytorch":
        converted = from_vit_pytorch(tensors)
    elif family == "hf":
        converted = _from_hf(tensors)
    elif family is None:
        return dict(tensors)
    else:
        converted = _renamed(tensors, {"torchvision": TORCHVISION, "mindcv": MINDCV, "timm": TIMM}[family])
    return _with_prefix_rows(converted)


def to_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `tensors` as torchvision's VisionTransformer has them; WeightsError names what it has no place for."""
    return _exported(tensors, TORCHVISION, "torchvision's VisionTransformer")


def to_hf(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `tensors` as transformers' ViT and DeiT models keep them in files; WeightsError if they have no place."""
    base, heads = ("deit", HF_HEADS[1:]) if "dist_token" in tensors else ("vit", HF_HEADS[:1])
    with_base = tuple((f"{base}.{theirs}", ours) for theirs, ours in HF)
    return _exported(split_qkv(tensors), with_base + heads, "transformers' ViT")


def num_prefix_tokens(tensors: Mapping[str, Tensor]) -> int:
    """How many class, distillation and register tokens stand before the patches; our names."""
    return sum(tensors[name].shape[1] for name in ("cls_token", "dist_token", "reg_token") if name in tensors)


def is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def _renamed(tensors: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    rename = to_ours(table)
    return {rename(name) or name: tensor for name, tensor in tensors.items()}


def _from_hf(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain = {name.removeprefix("deit.").removeprefix("vit."): tensor for name, tensor in tensors.items()}
    return join_qkv(_renamed(plain, HF + HF_HEADS))


def _exported(tensors: Mapping[str, Tensor], table: Table, whose: str) -> dict[str, Tensor]:
    rename = to_theirs(table)
    homeless = [name for name in tensors if rename(name) is None]
    if homeless:
        shown = ", ".join(homeless[:3]) + (", ..." if len(homeless) > 3 else "")
        raise WeightsError(f"{whose} has no place for {shown}", help="convert to timm or vitcli instead")
    return {theirs: tensor for name, tensor in tensors.items() if (theirs := rename(name))}


def _with_prefix_rows(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    positions, prefix = tensors.get("pos_embed"), num_prefix_tokens(tensors)
    if positions is not None and positions.ndim == 3 and prefix:
        rows = positions.shape[1]
        if is_square(rows) and not is_square(rows - prefix):
            zeros = positions.new_zeros(1, prefix, positions.shape[2])
            tensors["pos_embed"] = torch.cat([zeros, positions], dim=1)
    return tensors
