"""Converts the parameter names of a ViT in other projects to timm's, which are ours; projects are detected by content.

torchvision   encoder.layers.encoder_layer_0.self_attention.in_proj_weight   both ways
hf            vit.encoder.layer.0.attention.attention.query.weight           both ways (Hugging Face transformers)
google        Transformer/encoderblock_0/LayerNorm_0/scale                   both ways, see `vit_google`
vit-pytorch   transformer.layers.0.0.to_qkv.weight                           from, see `vit_pytorch_keys`
mindcv        backbone.transformer.layers.0.0.cell.1.qkv.weight              from
timm          blocks.0.attn.qkv.weight                                       with the variants of DeiT and DeiT III
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from vitcli.errors import WeightsError
from vitcli.image_size import ImageSize, height_and_width
from vitcli.models.renaming import Table, to_ours, to_theirs
from vitcli.models.vit_google import from_google, is_google, join_qkv, split_qkv
from vitcli.models.vit_pytorch_keys import from_vit_pytorch, is_vit_pytorch

#: replaces masked patches in training without labels; a network that is used has no use for it
MASK_TOKEN = "mask_token"

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
_HF_BASE = re.compile(r"^(vit|deit|dinov2(_with_registers)?)\.")
#: without such a beginning; "q", "k" and "v" are the three parts of our qkv
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
#: what DINOv2 has in place of some of them; without the beginning "dinov2." or "dinov2_with_registers."
HF_DINOV2: Table = (
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.mask_token", MASK_TOKEN),
    ("encoder.layer.{i}.norm1", "blocks.{i}.norm1"),
    ("encoder.layer.{i}.norm2", "blocks.{i}.norm2"),
    ("encoder.layer.{i}.layer_scale1.lambda1", "blocks.{i}.ls1.gamma"),
    ("encoder.layer.{i}.layer_scale2.lambda1", "blocks.{i}.ls2.gamma"),
    ("encoder.layer.{i}.mlp.fc1", "blocks.{i}.mlp.fc1"),
    ("encoder.layer.{i}.mlp.fc2", "blocks.{i}.mlp.fc2"),
)
HF_HEADS: Table = (
    ("classifier", "head"),
    ("cls_classifier", "head"),
    ("distillation_classifier", "head_dist"),
)
#: MindCV up to 0.2, after `mindspore` has renamed gamma and beta; later files have timm's names except for the head
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
#: names that differ from timm's in the published files of DeiT III and DINOv2 and the later ones of MindCV
TIMM: Table = (
    ("blocks.{i}.gamma_1", "blocks.{i}.ls1.gamma"),
    ("blocks.{i}.gamma_2", "blocks.{i}.ls2.gamma"),
    ("register_tokens", "reg_token"),
    *MINDCV[-3:],
)


def family_of(names: Iterable[str]) -> Family | None:
    """The project these names belong to; None if they are not recognized as a ViT's."""
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


def from_any(tensors: Mapping[str, Tensor], img_size: ImageSize | None = None) -> dict[str, Tensor]:
    """`tensors` under our names and in our shapes; `img_size` as for `with_prefix_rows`."""
    return with_prefix_rows(renamed(tensors), img_size)


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` under our names; unknown names stay as they are."""
    match family_of(tensors):
        case None:
            return dict(tensors)
        case "google":
            return from_google(tensors)
        case "vit-pytorch":
            return from_vit_pytorch(tensors)
        case "hf":
            plain = {_HF_BASE.sub("", name): tensor for name, tensor in tensors.items()}
            return join_qkv(_renamed(plain, HF + HF_HEADS + HF_DINOV2))
        case family:
            return _renamed(tensors, {"torchvision": TORCHVISION, "mindcv": MINDCV, "timm": TIMM}[family])


def with_prefix_rows(tensors: dict[str, Tensor], img_size: ImageSize | None = None) -> dict[str, Tensor]:
    """`tensors`, under our names, with a position for each token.

    Positions without rows for the class and register tokens (DeiT III, timm's `no_embed_class`), or without those for
    the registers (DINOv2), get rows of zeros, which does not change the sum. The size of the images says how many
    patches there are; if it is not known, they are taken to be a square.
    """
    positions, prefix = tensors.get("pos_embed"), num_prefix_tokens(tensors)
    if positions is None or positions.ndim != 3 or not prefix:
        return tensors
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    kernel, rows = tensors.get("patch_embed.proj.weight"), positions.shape[1]
    grid = image_grid(img_size, kernel.shape[-1] if kernel is not None and kernel.ndim == 4 else None)

    def fits(kept: int) -> bool:
        return rows - kept == math.prod(grid) if grid else is_square(rows - kept)

    kept = next((kept for kept in (prefix, 0, prefix - registers) if fits(kept)), prefix)
    zeros = positions.new_zeros(1, prefix - kept, positions.shape[2])
    return {**tensors, "pos_embed": torch.cat([positions[:, :kept], zeros, positions[:, kept:]], dim=1)}


def image_grid(img_size: ImageSize | None, patch_size: ImageSize | None) -> tuple[int, int] | None:
    """Whole patches along the height and the width of an image; None if one of the two sizes is not known."""
    if img_size is None or not patch_size:
        return None
    (height, width), (patch_height, patch_width) = height_and_width(img_size), height_and_width(patch_size)
    return height // patch_height, width // patch_width


def grid_of(num_patches: int, img_size: ImageSize | None, patch_size: ImageSize | None) -> tuple[int, int] | None:
    """The grid that `num_patches` positions belong to: that of the image if it fits, otherwise a square, or None."""
    grid = image_grid(img_size, patch_size)
    if grid and math.prod(grid) == num_patches:
        return grid
    side = math.isqrt(max(num_patches, 0))
    return (side, side) if side and side**2 == num_patches else None


def to_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `tensors` with the names of torchvision's VisionTransformer; WeightsError names what it cannot hold."""
    return _exported(tensors, TORCHVISION, "torchvision's VisionTransformer")


def to_hf(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `tensors` with the names of transformers' ViT and DeiT files; WeightsError names what they cannot hold."""
    base, heads = ("deit", HF_HEADS[1:]) if "dist_token" in tensors else ("vit", HF_HEADS[:1])
    with_base = tuple((f"{base}.{theirs}", ours) for theirs, ours in HF)
    return _exported(split_qkv(tensors), with_base + heads, "transformers' ViT")


def num_prefix_tokens(tensors: Mapping[str, Tensor]) -> int:
    """Number of class, distillation and register tokens before the patches, from our names."""
    return sum(tensors[name].shape[1] for name in ("cls_token", "dist_token", "reg_token") if name in tensors)


def is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def _renamed(tensors: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    rename = to_ours(table)
    return {rename(name) or name: tensor for name, tensor in tensors.items()}


def _exported(tensors: Mapping[str, Tensor], table: Table, target: str) -> dict[str, Tensor]:
    rename = to_theirs(table)
    unknown = [name for name in tensors if rename(name) is None]
    if unknown:
        shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise WeightsError(f"{target} cannot hold {shown}", help="convert to timm or vitcli instead")
    return {theirs: tensor for name, tensor in tensors.items() if (theirs := rename(name))}
