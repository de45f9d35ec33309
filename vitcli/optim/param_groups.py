"""Which parameters are decayed, and how quickly each layer learns: `weight_decay_filter` and `layer_decay`."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import nn

from vitcli.errors import UsageError

#: all normalization layers; their weights are scales around 1, which decay would pull to 0
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def param_groups(
    model: nn.Module, *, weight_decay: float, weight_decay_filter: str, layer_decay: float | None = None
) -> list[dict]:
    """Groups of trainable parameters, decayed and spared, of each layer or of all, with the parameters' names.

    Args:
        weight_decay_filter: `disable` decays all; `auto` spares biases and whatever has one dimension (timm's rule: a
            layer scale of shape (C, 1, 1) is decayed); `norm_and_bias` spares biases and the weights of norms. Both
            spare what the model names in `no_weight_decay` (class token, positions).
        layer_decay: the rate of layer i of L is multiplied by layer_decay^(L-1-i), so that of the head by 1 (BEiT,
            arXiv 2106.08254); it stands in the group as `lr_scale`. The model's `layer_of` tells the layers.

    Raises:
        UsageError: layer_decay is given and the model does not know its layers.
    """
    in_norms = {
        id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)
    }
    exempt = ("bias", *getattr(model, "no_weight_decay", ()))
    spared = {
        "disable": lambda name, p: False,
        "auto": lambda name, p: p.ndim <= 1 or name.endswith(exempt),
        "norm_and_bias": lambda name, p: id(p) in in_norms or name.endswith(exempt),
    }[weight_decay_filter]
    lr_scale = _lr_scales(model, layer_decay)
    members: dict[tuple[float, bool], dict[str, nn.Parameter]] = defaultdict(dict)
    for name, p in model.named_parameters():
        if p.requires_grad:
            members[lr_scale(name), spared(name, p)][name] = p
    return [
        {
            "params": list(named.values()),
            "names": list(named),
            "weight_decay": 0.0 if is_spared else weight_decay,
            "lr_factor": scale,
        }
        for (scale, is_spared), named in sorted(members.items(), key=lambda item: item[0])
    ]


def _lr_scales(model: nn.Module, layer_decay: float | None) -> Callable[[str], float]:
    """Name of a parameter -> factor of its rate."""
    if layer_decay is None:
        return lambda name: 1.0
    layered: Any = model
    if not hasattr(layered, "layer_of"):
        help = "give it `layer_of` and `num_layers`, or leave layer_decay out"
        raise UsageError(f"layer_decay: {type(model).__name__} does not tell its layers", help=help)
    return lambda name: layer_decay ** (layered.num_layers - 1 - layered.layer_of(name))
