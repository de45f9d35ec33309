"""The parts of other networks that vitcli's models do not have, recognized by their tensors, for messages."""

import re
from collections.abc import Mapping

from torch import Tensor

#: part of a tensor's name -> what it belongs to; the first that is found is named
_PARTS = {
    r"\.(mlp_out_proj|ffns\.\d|attns\.\d)": "parallel attention and feed-forward layers",
    r"\.lambda_q1": "differential attention",
    r"(^|\.)rope|\.rotary|(^|\.)freqs|\.inv_freq": "rotary positions (RoPE)",
    r"rel_pos|relative_position|\.rpe\.": "relative positions",
    r"\.mlp\.(w12|w3|w2|w1|fc1_g|fc1_x|gate_proj)\b|\.mlp\.weights_in": "gated feed-forward layers (SwiGLU)",
    r"(^|\.)attn_pool\.|(^|\.)attentive_pooler|head\.probe": "attention pooling",
    r"\.(q_norm|k_norm)\b": "normalized queries and keys",
    r"\.(attn|mlp)\.norm\b": "norms inside of attention or feed-forward layers",
    r"^(decoder|predictor|mask_decoder|neck)[._]": "a decoder",
    r"^(text|transformer\.resblocks|token_embedding|logit_scale)": "a text encoder",
}


def other_parts(tensors: Mapping[str, Tensor]) -> list[str]:
    """Which known parts of other networks are among `tensors`."""
    found = [part for pattern, part in _PARTS.items() if any(re.search(pattern, name) for name in tensors)]
    inner, outer = (tensors.get(f"blocks.0.mlp.fc{i}.weight") for i in (2, 1))
    if inner is not None and outer is not None and inner.ndim == 2 and len(outer) == 2 * inner.shape[1]:
        found.append("gated feed-forward layers (SwiGLU)")
    head, norm = (tensors.get(f"{name}.weight") for name in ("head", "norm"))
    if head is not None and norm is not None and head.ndim == 2 and head.shape[1] == 2 * len(norm):
        found.append("a classifier of the class token and the mean of the patches")
    for layer, part in (("norm1", "norms"), ("attn.proj", "projections"), ("mlp.fc1", "feed-forward layers")):
        if f"blocks.0.{layer}.weight" in tensors and f"blocks.0.{layer}.bias" not in tensors:
            found.append(f"{part} without bias")
    return found
