"""Converts parameter names between Apple's released FastViT files and timm, whose names are ours; fused form too.

MindCV's port has Apple's names except two, no biases in the feed-forward network, and no counter in its BatchNorms.

Apple keeps one flat list, `network`: stage, patch embedding, stage, ..., with a position encoding in between for the
variants with attention. timm puts what precedes a stage into the stage.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

Pairs = tuple[tuple[str, str], ...]

# (Apple, timm): beginnings of keys. The last stage is `network.7` after a position encoding, else `network.6`.
STARTS = (
    ("patch_embed.", "stem."),
    ("conv_exp.", "final_conv."),
    ("head.", "head.fc."),
    ("network.0.", "stages.0.blocks."),
    ("network.1.", "stages.1.downsample."),
    ("network.2.", "stages.1.blocks."),
    ("network.3.", "stages.2.downsample."),
    ("network.4.", "stages.2.blocks."),
    ("network.5.", "stages.3.downsample."),
)
LAST_STAGE = (("network.6.", "stages.3.blocks."),)
LAST_STAGE_WITH_POSITIONS = (
    ("network.6.pe.", "stages.3.pos_emb.pos_enc."),
    ("network.6.reparam_conv.", "stages.3.pos_emb.reparam_conv."),
    ("network.7.", "stages.3.blocks."),
)

# (Apple, timm): parts inside keys
PARTS = (
    (".rbr_conv.", ".conv_kxk."),
    (".rbr_scale.", ".conv_scale."),
    (".rbr_skip.", ".identity."),
    (".lkb_origin.", ".large_conv."),
    (".proj.0.lkb_reparam.", ".proj.0.reparam_conv."),
    (".convffn.", ".mlp."),
    (".se.reduce.", ".se.fc1."),
    (".se.expand.", ".se.fc2."),
)
LAYER_SCALES = (".layer_scale", ".layer_scale_1", ".layer_scale_2")  # timm appends ".gamma"


def is_apple(keys: Iterable[str]) -> bool:
    return any(key.startswith("patch_embed.0.") for key in keys)


def is_fastvit(names: Iterable[str]) -> bool:
    """Whether these are timm's names of a FastViT, in any form."""
    return any(name.startswith(("stem.0.conv_kxk.", "stem.0.reparam_conv.")) for name in names)


def from_apple(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` with Apple's (or MindCV's) names replaced by timm's; other names stay as they are."""
    if not is_apple(tensors):
        return dict(tensors)
    if any(key.startswith("network.1.layers.") for key in tensors):
        tensors = _from_mindcv(tensors)
    has_positions = any(key.startswith(("network.6.pe.", "network.6.reparam_conv.")) for key in tensors)
    starts = STARTS + (LAST_STAGE_WITH_POSITIONS if has_positions else LAST_STAGE)
    renamed = {_replaced(key, starts, PARTS): tensor for key, tensor in tensors.items()}
    return {f"{key}.gamma" if key.endswith(LAYER_SCALES) else key: tensor for key, tensor in renamed.items()}


def to_apple(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` of one of our models under Apple's names."""
    has_positions = any(key.startswith("stages.3.pos_emb.") for key in tensors)
    starts, parts = _swapped(STARTS + (LAST_STAGE_WITH_POSITIONS if has_positions else LAST_STAGE)), _swapped(PARTS)
    return {_replaced(key, starts, parts).removesuffix(".gamma"): tensor for key, tensor in tensors.items()}


def _from_mindcv(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MindCV's tensors, with PyTorch's names for norms, as Apple has them; missing biases are zero."""
    apple = {k.replace(".layers.", ".proj.").replace("_mixer.w", "_mixer.layer_scale"): t for k, t in tensors.items()}
    for key, tensor in list(apple.items()):
        if key.endswith((".convffn.fc1.weight", ".convffn.fc2.weight")):
            apple.setdefault(key.replace(".weight", ".bias"), tensor.new_zeros(len(tensor)))
        elif key.endswith(".running_mean"):
            apple.setdefault(key.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return apple


def _replaced(key: str, starts: Pairs, parts: Pairs) -> str:
    """`key` with the first fitting beginning of `starts`, and all of `parts`, replaced: (old, new)."""
    for old, new in starts:
        if key.startswith(old):
            key = new + key.removeprefix(old)
            break
    for old, new in parts:
        key = key.replace(old, new)
    return key


def _swapped(pairs: Pairs) -> Pairs:
    return tuple((timm, apple) for apple, timm in pairs)
