"""FastViT as the native format stores it: fully folded, its convolutions depthwise or matrices.

docs/native.md lists the steps that remain.
"""

from torch import nn

from vitcli.deploy.native.writer import Writer
from vitcli.errors import UsageError
from vitcli.layers.mobileone import FusedConv, SqueezeExcite
from vitcli.models.fastvit import AttentionBlock, ConvFFN, FastViT, PatchEmbed, RepMixerBlock, Stage
from vitcli.models.fastvit_runtime import DepthwiseConvs


def write_fastvit(writer: Writer, model: FastViT, *, temperature: float) -> None:
    """Add `model`, fully folded and rewritten by `split_grouped`."""
    if not model.num_classes:
        raise UsageError("the format native has no FastViT without a head", help="export it with --to onnx")
    stages = [stage for stage in model.stages if isinstance(stage, Stage)]
    attention = [isinstance(stage.blocks[0], AttentionBlock) for stage in stages]
    writer.values |= {
        "architecture": "fastvit",
        "in_channels": model.in_chans,
        "depths": ",".join(map(str, model.depths)),
        "attention_stages": ",".join(str(int(has)) for has in attention),
        "head_dim": next((_head_dim(stage) for stage, has in zip(stages, attention, strict=True) if has), 0),
        "num_classes": model.num_classes,
    }
    first = _conv(model.stem[0])
    # (C, in, 3, 3) -> (C, 3 * 3 * in): the order of a window of an image (H, W, C)
    writer.linear("stem.0", first, weight=first.weight.permute(0, 2, 3, 1).flatten(1), stays_float=True)
    _depthwise(writer, "stem.1", model.stem[1])
    writer.linear("stem.2", _conv(model.stem[2]))
    for number, stage in enumerate(stages):
        _stage(writer, f"stages.{number}", stage, has_attention=attention[number])
    _depthwise(writer, "final", model.final_conv)
    gate = model.final_conv.se
    assert isinstance(gate, SqueezeExcite)
    writer.linear("gate.fc1", gate.fc1, stays_float=True)
    writer.linear("gate.fc2", gate.fc2, stays_float=True)
    writer.last("head", model.head.fc, temperature=temperature)


def _stage(writer: Writer, name: str, stage: Stage, *, has_attention: bool) -> None:
    if isinstance(stage.downsample, PatchEmbed):
        _depthwise(writer, f"{name}.down", stage.downsample.proj[0])
        writer.linear(f"{name}.widen", _conv(stage.downsample.proj[1]))
    if has_attention:
        _depthwise(writer, f"{name}.positions", stage.pos_emb)
    for number, block in enumerate(stage.blocks):
        part = f"{name}.blocks.{number}"
        if isinstance(block, AttentionBlock):
            qkv = block.token_mixer.qkv
            dim, width = qkv.in_features, qkv.in_features // block.token_mixer.num_heads
            factors = qkv.weight.new_ones(3 * dim)
            factors[:dim] = width**-0.5  # of the scores, in the queries
            writer.linear(f"{part}.qkv", qkv, weight=qkv.weight * factors[:, None], bias=qkv.bias * factors)
            writer.linear(f"{part}.proj", block.token_mixer.proj)
        else:
            assert isinstance(block, RepMixerBlock)
            _depthwise(writer, f"{part}.mixer", block.token_mixer)
        _feed_forward(writer, part, block.mlp)


def _feed_forward(writer: Writer, name: str, mlp: ConvFFN) -> None:
    writer.depthwise(f"{name}.conv", [mlp.conv.conv])
    writer.linear(f"{name}.fc1", mlp.fc1)
    writer.linear(f"{name}.fc2", mlp.fc2)


def _head_dim(stage: Stage) -> int:
    block = stage.blocks[0]
    assert isinstance(block, AttentionBlock)
    return block.token_mixer.qkv.in_features // block.token_mixer.num_heads


def _depthwise(writer: Writer, name: str, block: nn.Module) -> None:
    assert isinstance(block, FusedConv)
    conv = block.reparam_conv
    parts = list(conv.convs) if isinstance(conv, DepthwiseConvs) else [conv]
    writer.depthwise(name, [part for part in parts if isinstance(part, nn.Conv2d)])


def _conv(block: nn.Module) -> nn.Conv2d:
    assert isinstance(block, FusedConv)
    assert isinstance(block.reparam_conv, nn.Conv2d)
    return block.reparam_conv
