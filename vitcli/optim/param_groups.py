"""Which parameters are decayed and how fast each layer learns: `weight_decay_filter` and `layer_decay`."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import nn

from vitcli.errors import UsageError

#: all normalization layers; their weights are scales around 1, which decay would pull to 0
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def param_groups(
    task: nn.Module, *, weight_decay: float, weight_decay_filter: str, layer_decay: float | None = None
) -> list[dict]:
    """Groups of trainable parameters with one decay and one rate each: `params`, `names`, `weight_decay`, `lr_factor`.

    Args:
        task: a task, or a network alone. Where it has an attribute `network`, that says what its parameters are
            (`no_weight_decay`, `layer_of`, `num_layers`), under their names inside it; parameters of the task outside
            the network belong to the top layer. `task.lr_factor(name)`, where there is one, multiplies the factor.
        weight_decay_filter: `disable` decays all; `auto` spares biases and all of one dimension (timm's rule: a layer
            scale of shape (C, 1, 1) is decayed); `norm_and_bias` spares biases and the weights of norms. Both
            spare what the network lists in `no_weight_decay` (class token, positions).
        layer_decay: the rate of layer i of L is multiplied by layer_decay^(L-1-i), that of the head by 1 (BEiT,
            arXiv 2106.08254).

    Raises:
        UsageError: layer_decay is given and the network does not tell its layers.
    """
    network = getattr(task, "network", task)
    inner_names = {id(p): name for name, p in network.named_parameters()}
    is_spared = _spared(task, network, weight_decay_filter)
    layer_factor = _layer_factor(network, layer_decay)
    task_factor = getattr(task, "lr_factor", lambda name: 1.0)
    members: dict[tuple[float, bool], dict[str, nn.Parameter]] = defaultdict(dict)
    for name, p in task.named_parameters():
        if p.requires_grad:
            inner = inner_names.get(id(p))
            factor = task_factor(name) * (1.0 if inner is None else layer_factor(inner))
            members[factor, is_spared(inner, name, p)][name] = p
    return [
        {
            "params": list(named.values()),
            "names": list(named),
            "weight_decay": 0.0 if spared else weight_decay,
            "lr_factor": factor,
        }
        for (factor, spared), named in sorted(members.items(), key=lambda item: item[0])
    ]


def split_groups(groups: list[dict], chosen: set[int], flag: str) -> list[dict]:
    """Each group in two: `flag: True` with those of its parameters whose ids are chosen, `flag: False` with the rest.

    Those with True come first; groups without parameters are left out.
    """
    halves = []
    for wanted in (True, False):
        for group in groups:
            pairs = zip(group["params"], group["names"], strict=True)
            if kept := [(p, name) for p, name in pairs if (id(p) in chosen) == wanted]:
                params, names = (list(column) for column in zip(*kept, strict=True))
                halves.append({**group, "params": params, "names": names, flag: wanted})
    return halves


def _spared(
    task: nn.Module, network: nn.Module, weight_decay_filter: str
) -> Callable[[str | None, str, nn.Parameter], bool]:
    """(name in the network or None, name in the task, parameter) -> whether it is not decayed."""
    exempt = tuple(getattr(network, "no_weight_decay", ()))
    norms = {id(p) for layer in task.modules() if isinstance(layer, NORMS) for p in layer.parameters(recurse=False)}

    def named(inner: str | None, name: str) -> bool:
        return name.endswith("bias") or (inner is not None and inner.endswith(exempt))

    return {
        "disable": lambda inner, name, p: False,
        "auto": lambda inner, name, p: p.ndim <= 1 or named(inner, name),
        "norm_and_bias": lambda inner, name, p: id(p) in norms or named(inner, name),
    }[weight_decay_filter]


def _layer_factor(network: Any, layer_decay: float | None) -> Callable[[str], float]:
    """Name of a parameter of the network -> factor of its rate."""
    if layer_decay is None:
        return lambda name: 1.0
    if not hasattr(network, "layer_of"):
        help = "give it `layer_of` and `num_layers`, or remove layer_decay"
        raise UsageError(f"layer_decay: {type(network).__name__} does not tell its layers", help=help)
    return lambda name: layer_decay ** (network.num_layers - 1 - network.layer_of(name))
