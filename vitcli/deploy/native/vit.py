"""The plain ViT as the native format stores it: folded until every variant is the same few steps.

Folded are layer scales, the weights and biases of the norms in the blocks, the factor of the attention scores (into
the queries), the positions of the class, distillation and register tokens (into these), and the temperature (into the
last layer). docs/native.md lists what remains.
"""

from typing import NoReturn, cast

import torch
from torch import Tensor, nn

from vitcli.deploy.native.writer import Writer
from vitcli.errors import UsageError
from vitcli.layers.activation import QuickGELU
from vitcli.layers.attention import Attention
from vitcli.layers.embed import PatchEmbed
from vitcli.layers.reparam import is_plain
from vitcli.layers.transformer import Block, Mlp
from vitcli.models.vision_transformer import VisionTransformer

_ACTIVATIONS = {nn.GELU: "gelu", QuickGELU: "quick_gelu", nn.ReLU: "relu", nn.SiLU: "silu"}


def write_vit(writer: Writer, model: VisionTransformer, *, temperature: float) -> None:
    """Add the fully folded `model`; UsageError, which names it, for a part that the format has no word for."""
    if not model.num_classes:
        _refuse("a ViT without a head")
    if model.transformer is not None:
        _refuse(f"a ViT with the transformer {type(model.transformer).__name__}")
    writer.values["architecture"] = "vit"
    _embedding(writer, model)
    _blocks(writer, [_plain_block(block) for block in model.blocks])
    _pooling(writer, model)
    _heads(writer, model, temperature)


def _refuse(what: str) -> NoReturn:
    raise UsageError(f"the format native has no {what}", help="export it with --to onnx, openvino or aoti")


def _embedding(writer: Writer, model: VisionTransformer) -> None:
    embed = model.patch_embed
    if type(embed) is not PatchEmbed:
        _refuse(f"patch embedding of the kind {type(embed).__name__}")
    rows, columns = model.grid_size
    writer.values |= {"in_channels": model.in_chans, "patch_size": model.patch_size}
    writer.values |= {"grid_rows": rows, "grid_columns": columns, "embed_dim": embed.dim}
    writer.values["norm_patch_pixels"] = _flag(embed.norm_in)
    if isinstance(embed.norm_in, nn.LayerNorm) and embed.norm_in.elementwise_affine:
        _refuse("norm of patches that is not folded")
    # (D, C, p, p) -> (D, p * p * C): a row of a patch is contiguous in an image (H, W, C)
    writer.linear("patch", embed.proj, weight=embed.proj.weight.permute(0, 2, 3, 1).flatten(1), stays_float=True)
    _optional_norm(writer, "patch_norm", embed.norm)

    given = [tokens for tokens in (model.cls_token, model.dist_token, model.reg_token) if tokens is not None]
    num_prefix, num_patches = model.num_prefix_tokens, rows * columns
    prefix = torch.cat([tokens[0] for tokens in given]) if given else None  # (P, D)
    positions = torch.zeros(num_patches, embed.dim)
    if model.fixed_pos_embed is not None:
        positions = positions + cast(Tensor, model.fixed_pos_embed)[0]
    if model.pos_embed is not None:
        positions = positions + model.pos_embed[0, num_prefix:]
        prefix = None if prefix is None else prefix + model.pos_embed[0, :num_prefix]
    writer.values["num_prefix_tokens"] = num_prefix
    if prefix is not None:
        writer.add("prefix", prefix)
    writer.add("positions", positions)
    _optional_norm(writer, "norm_pre", model.norm_pre)


def _plain_block(block: nn.Module) -> Block:
    if type(block) is not Block or not (is_plain(block.attn, Attention) and is_plain(block.mlp, Mlp)):
        _refuse(f"block of the kind {type(block).__name__}, or its attention or MLP")
    for norm in (block.norm1, block.norm2):
        if not isinstance(norm, nn.LayerNorm) or norm.elementwise_affine:
            _refuse("norm in a block that is not folded")
    return block


def _blocks(writer: Writer, blocks: list[Block]) -> None:
    first = blocks[0].attn
    assert isinstance(blocks[0].norm1, nn.LayerNorm)
    writer.values |= {"depth": len(blocks), "num_heads": first.num_heads, "head_dim": first.head_dim}
    writer.values |= {"mlp_dim": blocks[0].mlp.fc1.out_features, "norm_eps": blocks[0].norm1.eps}
    writer.values |= {"mlp_activation": _activation(blocks[0].mlp.act), "attend_to_self": int(first.scale is None)}
    for number, block in enumerate(blocks):
        weight, bias = _with_scale(block.attn)
        writer.linear(f"blocks.{number}.qkv", block.attn.qkv, weight=weight, bias=bias)
        writer.linear(f"blocks.{number}.proj", block.attn.proj)
        writer.linear(f"blocks.{number}.fc1", block.mlp.fc1)
        writer.linear(f"blocks.{number}.fc2", block.mlp.fc2)


def _with_scale(attention: Attention) -> tuple[Tensor, Tensor]:
    """Weight (3 * heads * head_dim, D) and bias of `qkv` with the factor of the scores in the queries."""
    qkv, heads, width = attention.qkv, attention.num_heads, attention.head_dim
    per_head = torch.full((heads,), attention.fixed_scale) if attention.scale is None else attention.scale.flatten()
    factors = torch.ones(3, heads, width)
    factors[0] = per_head.detach()[:, None]
    factors[2] = attention.value_scale
    bias = torch.zeros(len(qkv.weight)) if qkv.bias is None else qkv.bias
    return qkv.weight * factors.view(-1, 1), bias * factors.flatten()


def _pooling(writer: Writer, model: VisionTransformer) -> None:
    """The norm is before or after the pooling of patches; for tokens this makes no difference."""
    is_pooled = model.global_pool != "token"
    writer.values |= {"pool": model.global_pool, "num_pooled_tokens": 0 if is_pooled else model.num_pooled}
    writer.values["norm_pooled"] = _flag(model.fc_norm)
    _optional_norm(writer, "norm", model.fc_norm if isinstance(model.fc_norm, nn.LayerNorm) else model.norm)


def _heads(writer: Writer, model: VisionTransformer, temperature: float) -> None:
    writer.values["pre_logits"] = int(len(model.pre_logits) > 0)
    if model.pre_logits:
        writer.linear("pre_logits", model.pre_logits[0], stays_float=True)
    is_stacked = isinstance(model.fine_tune, nn.Linear)
    heads = {"head": model.head} | ({} if model.head_dist is None else {"head_dist": model.head_dist})
    writer.values |= {"distilled": int(len(heads) > 1), "fine_tune": int(is_stacked)}
    writer.values["head_layers"] = 2 if isinstance(model.head, nn.Sequential) else 1
    for name, head in heads.items():
        if isinstance(head, nn.Sequential):
            writer.linear(f"{name}.fc1", head[0], stays_float=True)
            last, name = head[2], f"{name}.fc2"
        else:
            last = head
        writer.last(name, last, temperature=1.0 if is_stacked else temperature)
    if is_stacked:
        writer.last("fine_tune", model.fine_tune, temperature=temperature)
    writer.values["num_classes"] = model.num_classes


def _optional_norm(writer: Writer, name: str, norm: nn.Module) -> None:
    """Add whether there is this norm, and its weight and bias."""
    writer.values[name] = _flag(norm)
    if isinstance(norm, nn.LayerNorm):
        writer.norm(name, norm)


def _flag(norm: nn.Module) -> int:
    return int(not isinstance(norm, nn.Identity))


def _activation(act: nn.Module) -> str:
    """Its name in `layers.activation`."""
    if type(act) not in _ACTIVATIONS:
        _refuse(f"activation of the kind {type(act).__name__}")
    is_tanh = isinstance(act, nn.GELU) and act.approximate == "tanh"
    return "gelu_tanh" if is_tanh else _ACTIVATIONS[type(act)]
