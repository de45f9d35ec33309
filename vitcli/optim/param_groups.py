"""Which parameters are decayed: the rule of `weight_decay_filter`."""

from torch import nn

#: all normalisation layers; their weights are scales around 1, which decay would pull to 0
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def param_groups(model: nn.Module, *, weight_decay: float, weight_decay_filter: str) -> list[dict]:
    """Two groups of trainable parameters, decayed and spared, each with the parameters' names.

    Args:
        weight_decay_filter: `disable` decays all; `auto` spares biases and whatever has one dimension (timm's rule: a
            layer scale of shape (C, 1, 1) is decayed); `norm_and_bias` spares biases and the weights of norms.
    """
    in_norms = {
        id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)
    }
    spared = {
        "disable": lambda name, p: False,
        "auto": lambda name, p: p.ndim <= 1 or name.endswith("bias"),
        "norm_and_bias": lambda name, p: id(p) in in_norms or name.endswith("bias"),
    }[weight_decay_filter]
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed_pairs = [pair for pair in trainable if not spared(*pair)]
    spared_pairs = [pair for pair in trainable if spared(*pair)]
    return [
        {"params": [p for _, p in pairs], "names": [name for name, _ in pairs], "weight_decay": decay}
        for pairs, decay in ((decayed_pairs, weight_decay), (spared_pairs, 0.0))
        if pairs
    ]
