"""Converts names and shapes between a ViT in Google's .npz files, original and big_vision, and ours.

    prefix        none, "opt/target/", "params/", "params/img/" (the image tower of two)
    block i       Transformer/encoderblock_i/..., or Transformer/encoderblock/... with i as the first axis ("scanned")
    original      MultiHeadDotProductAttention_1, MlpBlock_3, LayerNorm_2
    big_vision    MultiHeadDotProductAttention_0, MlpBlock_0, LayerNorm_1

Kernels have the input dimension first; queries, keys and values are (D, heads, head_dim) each.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vitcli.errors import WeightsError
from vitcli.models.renaming import Table, to_ours, to_theirs

PREFIXES = ("", "opt/target/", "params/img/", "params/")
SCANNED = "Transformer/encoderblock/"
_BLOCK, _ATTENTION = "Transformer.encoderblock_{i}", "Transformer.encoderblock_{i}.MultiHeadDotProductAttention_"

#: with "." for "/", and "weight" for kernel and scale; the names of the original first
TABLE: Table = (
    ("cls", "cls_token"),
    ("Transformer.posembed_input.pos_embedding", "pos_embed"),
    ("pos_embedding", "pos_embed"),
    ("embedding", "patch_embed.proj"),
    (f"{_BLOCK}.LayerNorm_0", "blocks.{i}.norm1"),
    *((f"{_ATTENTION}{k}.query", "blocks.{i}.attn.q") for k in (1, 0)),
    *((f"{_ATTENTION}{k}.key", "blocks.{i}.attn.k") for k in (1, 0)),
    *((f"{_ATTENTION}{k}.value", "blocks.{i}.attn.v") for k in (1, 0)),
    *((f"{_ATTENTION}{k}.out", "blocks.{i}.attn.proj") for k in (1, 0)),
    *((f"{_BLOCK}.LayerNorm_{k}", "blocks.{i}.norm2") for k in (2, 1)),
    *((f"{_BLOCK}.MlpBlock_{k}.Dense_0", "blocks.{i}.mlp.fc1") for k in (3, 0)),
    *((f"{_BLOCK}.MlpBlock_{k}.Dense_1", "blocks.{i}.mlp.fc2") for k in (3, 0)),
    ("Transformer.encoder_norm", "norm"),
    ("pre_logits", "pre_logits.fc"),
    ("head", "head"),
)


def is_google(names: Iterable[str]) -> bool:
    return _prefix(set(names)) is not None


def num_heads_of(tensors: Mapping[str, Tensor]) -> int | None:
    """The number of heads, which only these files contain."""
    queries = [tensor for name, tensor in tensors.items() if name.endswith("query/kernel") and tensor.ndim >= 3]
    return queries[0].shape[-2] if queries else None


def from_google(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's `tensors` under our names and in our shapes; optimizer state is ignored."""
    prefix = _prefix(set(tensors)) or ""
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    rename, ours = to_ours(TABLE), dict[str, Tensor]()
    for name, tensor in _unstacked(own).items():
        dotted = name.replace("/", ".").removesuffix(".kernel").removesuffix(".scale")
        dotted += ".weight" if name.endswith(("/kernel", "/scale")) else ""
        ours[rename(dotted) or name] = _our_shape(name, tensor)
    return join_qkv(ours)


def to_google(tensors: Mapping[str, Tensor], num_heads: int) -> dict[str, Tensor]:
    """Our `tensors` under the names and in the shapes of the original files, without a prefix.

    Raises:
        WeightsError: the format cannot hold a tensor.
    """
    rename, theirs = to_theirs(TABLE), dict[str, Tensor]()
    for name, tensor in split_qkv(tensors).items():
        dotted = rename(name)
        if dotted is None:
            raise WeightsError(f"Google's ViT cannot hold {name}", help="convert to timm or vitcli instead")
        is_norm = name.endswith(".weight") and tensor.ndim == 1
        slashed = dotted.removesuffix(".weight").replace(".", "/")
        slashed += ("/scale" if is_norm else "/kernel") if name.endswith(".weight") else ""
        theirs[slashed] = _their_shape(name, tensor, num_heads)
    return theirs


def _prefix(names: set[str]) -> str | None:
    return next((prefix for prefix in PREFIXES if f"{prefix}embedding/kernel" in names), None)


def _unstacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scanned blocks split into single ones."""
    split = dict[str, Tensor]()
    for name, tensor in tensors.items():
        if name.startswith(SCANNED):
            split |= {name.replace(SCANNED, f"{SCANNED[:-1]}_{i}/"): layer for i, layer in enumerate(tensor)}
        else:
            split[name] = tensor
    return split


def _our_shape(name: str, tensor: Tensor) -> Tensor:
    if name.endswith(("query/kernel", "key/kernel", "value/kernel")):  # (D, heads, head_dim)
        tensor = tensor.flatten(1).T
    elif name.endswith(("query/bias", "key/bias", "value/bias")):  # (heads, head_dim)
        tensor = tensor.flatten()
    elif name.endswith("out/kernel"):  # (heads, head_dim, D)
        tensor = tensor.flatten(0, -2).T
    elif name.endswith("embedding/kernel") and tensor.ndim == 4:  # (p, p, C, D)
        tensor = tensor.permute(3, 2, 0, 1)
    elif name.endswith("kernel") and tensor.ndim == 2:
        tensor = tensor.T
    return tensor.contiguous()


def _their_shape(name: str, tensor: Tensor, num_heads: int) -> Tensor:
    is_qkv = any(f".attn.{part}." in name for part in "qkv")
    if is_qkv and tensor.ndim == 2:
        tensor = tensor.T.unflatten(1, (num_heads, -1))
    elif is_qkv:
        tensor = tensor.unflatten(0, (num_heads, -1))
    elif name.endswith(".attn.proj.weight"):
        tensor = tensor.T.unflatten(0, (num_heads, -1))
    elif tensor.ndim == 4:
        tensor = tensor.permute(2, 3, 1, 0)
    elif name.endswith(".weight") and tensor.ndim == 2:
        tensor = tensor.T
    return tensor.contiguous()


def split_qkv(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`attn.qkv` split into `attn.q`, `attn.k` and `attn.v`."""
    parts = dict[str, Tensor]()
    for name, tensor in tensors.items():
        if ".attn.qkv." in name:
            pieces = zip("qkv", tensor.chunk(3), strict=True)
            parts |= {name.replace(".qkv.", f".{part}."): piece.clone() for part, piece in pieces}
        else:
            parts[name] = tensor
    return parts


def join_qkv(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_qkv`; a set with a missing part is not joined."""
    joined = dict[str, Tensor]()
    for name, tensor in tensors.items():
        whole = re.sub(r"\.attn\.[qkv]\.", ".attn.qkv.", name)
        parts = [tensors.get(whole.replace(".qkv.", f".{part}.")) for part in "qkv"]
        present = [part for part in parts if part is not None]
        if whole == name or len(present) < 3:
            joined[name] = tensor
        elif whole not in joined:
            joined[whole] = torch.cat(present)
    return joined
