"""Converts the names of vit-pytorch's `ViT` and `efficient.ViT`, from its first release to the current one, to ours.

    current     norms inside the layers and around the patch projection; tokens and positions without a batch axis
    2021        norms in wrappers (`0.fn.to_qkv`), a head with its norm (`mlp_head.0`, `mlp_head.1`)
    v0.1        wrappers in wrappers (`0.fn.fn.to_qkv`), `patch_to_embedding`, a head of two layers

Its patches are flattened as row, column, channel; ours as channel, row, column. Such vectors do not show the number of
channels: it is 3 if that leaves a square, else 1 (patches of 4 channels look like gray ones of twice the side).
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vitcli.models.renaming import Table, to_ours

COMMON: Table = (
    ("pos_embedding", "pos_embed"),
    ("patch_to_embedding", "patch_embed.proj"),
    ("transformer.layers.{i}.0.norm", "blocks.{i}.norm1"),
    ("transformer.layers.{i}.0.to_qkv", "blocks.{i}.attn.qkv"),
    ("transformer.layers.{i}.0.to_out", "blocks.{i}.attn.proj"),
    ("transformer.layers.{i}.0.to_out.0", "blocks.{i}.attn.proj"),
    ("transformer.norm", "norm"),
    ("mlp_head", "head"),
)
NORM_INSIDE: Table = (
    ("transformer.layers.{i}.1.net.0", "blocks.{i}.norm2"),
    ("transformer.layers.{i}.1.net.1", "blocks.{i}.mlp.fc1"),
    ("transformer.layers.{i}.1.net.4", "blocks.{i}.mlp.fc2"),
)
NORM_BEFORE: Table = (
    ("transformer.layers.{i}.1.norm", "blocks.{i}.norm2"),
    ("transformer.layers.{i}.1.net.0", "blocks.{i}.mlp.fc1"),
    ("transformer.layers.{i}.1.net.2", "blocks.{i}.mlp.fc2"),
    ("transformer.layers.{i}.1.net.3", "blocks.{i}.mlp.fc2"),
)
PATCHES_WITH_NORMS: Table = (
    ("to_patch_embedding.1", "patch_embed.norm_in"),
    ("to_patch_embedding.2", "patch_embed.proj"),
    ("to_patch_embedding.3", "patch_embed.norm"),
)
PATCHES: Table = (("to_patch_embedding.1", "patch_embed.proj"),)
HEAD_WITH_NORM: Table = (("mlp_head.0", "norm"), ("mlp_head.1", "head"))
HEAD_OF_TWO: Table = (("mlp_head.0", "head.0"), ("mlp_head.2", "head.2"))


def is_vit_pytorch(names: Iterable[str]) -> bool:
    return any(name.startswith(("to_patch_embedding.", "patch_to_embedding.")) for name in names)


def hidden_options(names: Iterable[str]) -> dict[str, Any]:
    """What its code implies: the eps; in v0.1 the scale; one head if there is no output projection."""
    names = set(names)
    found: dict[str, Any] = {"norm_eps": 1e-5}
    if {"patch_to_embedding.weight", "mlp_head.2.weight"} <= names:  # v0.1
        found["attn_scale"] = "full"
    if any(".to_qkv." in name for name in names) and not any(".to_out." in name for name in names):
        found["num_heads"] = 1
    return found


def from_vit_pytorch(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` under our names and in our shapes."""
    plain = {name: name.replace(".fn.", ".").replace(".fn.", ".") for name in tensors}  # without the wrappers
    rename = to_ours(COMMON + _tables_for(set(plain.values())))
    ours = {rename(plain[name]) or name: tensor for name, tensor in tensors.items()}
    for name in ("cls_token", "pos_embed"):
        if name in ours and ours[name].ndim == 2:
            ours[name] = ours[name].unsqueeze(0)
    if "cls_token" in ours and not ours["cls_token"].numel():  # a model that pools by the mean has an empty one
        del ours["cls_token"]
    if "patch_embed.proj.weight" in ours:
        _reorder_patches(ours)
    _add_projections(ours)
    return ours


def _tables_for(names: set[str]) -> Table:
    table = NORM_BEFORE if "transformer.layers.0.1.norm.weight" in names else NORM_INSIDE
    table += PATCHES_WITH_NORMS if "to_patch_embedding.2.weight" in names else PATCHES
    return table + (HEAD_WITH_NORM if "mlp_head.1.weight" in names else HEAD_OF_TWO)


def _reorder_patches(tensors: dict[str, Tensor]) -> None:
    """Vectors of a patch from (p, p, C) to (C, p, p); the projection becomes a kernel (D, C, p, p)."""
    weight = tensors["patch_embed.proj.weight"]
    length = weight.shape[1]
    channels = next((c for c in (3, 1) if length % c == 0 and math.isqrt(length // c) ** 2 == length // c), 0)
    if weight.ndim != 2 or not channels:
        return
    side = math.isqrt(length // channels)
    tensors["patch_embed.proj.weight"] = weight.unflatten(1, (side, side, channels)).permute(0, 3, 1, 2).contiguous()
    for name in ("patch_embed.norm_in.weight", "patch_embed.norm_in.bias"):
        if name in tensors and len(tensors[name]) == length:
            tensors[name] = tensors[name].view(side, side, channels).permute(2, 0, 1).flatten().contiguous()


def _add_projections(tensors: dict[str, Tensor]) -> None:
    """A single head as wide as the model has no output projection, which equals an identity."""
    for name in [name for name in tensors if name.endswith(".attn.qkv.weight")]:
        block, like = name.removesuffix(".qkv.weight"), tensors[name]
        if f"{block}.proj.weight" not in tensors and like.shape[0] == 3 * like.shape[1]:
            tensors[f"{block}.proj.weight"] = torch.eye(like.shape[1], dtype=like.dtype, device=like.device)
            tensors[f"{block}.proj.bias"] = like.new_zeros(like.shape[1])
