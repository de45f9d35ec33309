"""First values of a ViT: those of the ViT authors' JAX code."""

import math

from torch import nn

from vitcli.models.vision_transformer import VisionTransformer


def initialize(model: VisionTransformer, *, head_bias_init: float = 0.0) -> None:
    """Draw all weights but those of another `transformer`: uniform by fan, small positions, a head of zeros.

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
