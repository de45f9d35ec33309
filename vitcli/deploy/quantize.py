"""Static int8: which layers always stay in floating point, and how much int8 costs in each of the others."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitcli.layers.fake_quant import SIMULATED, stays_float
from vitcli.layers.mobileone import SqueezeExcite


def always_float(network: nn.Module, ends: Iterable[str]) -> tuple[str, ...]:
    """Names of the layers that are never int8: the first, the last, squeeze-excite's and depthwise ones.

    ends: names of the first and last layers, in any form of the submodule `model` of the folded `network`.
    """
    modules = dict(network.named_modules())
    gates = [name for name, module in modules.items() if isinstance(module, SqueezeExcite)]
    names = [*(f"model.{end}" for end in ends), *(f"{gate}.{layer}" for gate in gates for layer in ("fc1", "fc2"))]
    depthwise = [name for name, module in modules.items() if isinstance(module, nn.Conv2d) and stays_float(module)]
    return tuple(name for name in dict.fromkeys([*names, *depthwise]) if name in modules)


@torch.inference_mode()
def layer_errors(network: nn.Module, inputs: Sequence[Tensor], *, kept: Iterable[str] = ()) -> dict[str, float]:
    """Name of each convolution and linear layer -> error of the outputs if only this layer is int8; worst first.

    The error is the root mean square of the differences divided by the standard deviation of the exact outputs.

    inputs: batches of real images, as the folded network takes them. kept: layers that stay in float anyway.
    """
    skipped = set(kept)
    exact = [_logits(network, batch) for batch in inputs]
    spread = sum(float((logits - logits.mean(1, keepdim=True)).square().sum()) for logits in exact) or 1.0
    errors = {}
    for name, layer in network.named_modules():
        kind = type(layer)
        if kind not in SIMULATED or not isinstance(layer, nn.Conv2d | nn.Linear) or name in skipped:
            continue
        simulated: Any = layer
        simulated.__class__ = SIMULATED[kind]
        differences = [_logits(network, batch) - logits for batch, logits in zip(inputs, exact, strict=True)]
        simulated.__class__ = kind
        errors[name] = (sum(float(difference.square().sum()) for difference in differences) / spread) ** 0.5
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def _logits(network: nn.Module, batch: Tensor) -> Tensor:
    """The outputs; for probabilities their logarithms or logits, so that small ones count too."""
    outputs = network(batch).to(torch.float64)
    match getattr(network, "activation", None):
        case "softmax":
            return outputs.clamp_min(1e-12).log()
        case "sigmoid":
            return outputs.logit(eps=1e-12)
        case _:
            return outputs
