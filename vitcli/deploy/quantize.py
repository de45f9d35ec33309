"""Static int8; where it costs too much accuracy, the layers with the largest errors stay in floating point."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from vitcli.deploy.formats import Order
from vitcli.deploy.gate import Verdict
from vitcli.deploy.sensitivity import layer_errors
from vitcli.errors import UsageError
from vitcli.layers.fake_quant import stays_float
from vitcli.layers.mobileone import SqueezeExcite

#: images on which the layers are compared with each other
NUM_SENSITIVITY = 100
#: number of the worst layers that stay in float, one attempt after the other
ATTEMPTS = (0, 1, 2, 4, 8, 16, 32)


def always_float(network: nn.Module, ends: Iterable[str]) -> tuple[str, ...]:
    """Names of the layers that are never int8: the first, the last, squeeze-excite's and depthwise ones.

    Args:
        network: folded; its model is the submodule `model`.
        ends: names in the model of the first and last layers, in any of its forms.
    """
    modules = dict(network.named_modules())
    gates = [name for name, module in modules.items() if isinstance(module, SqueezeExcite)]
    names = [*(f"model.{end}" for end in ends), *(f"{gate}.{layer}" for gate in gates for layer in ("fc1", "fc2"))]
    depthwise = [name for name, module in modules.items() if isinstance(module, nn.Conv2d) and stays_float(module)]
    return tuple(name for name in dict.fromkeys([*names, *depthwise]) if name in modules)


@dataclass(frozen=True)
class Fallback:
    """The attempt that passed, or the last one if none did."""

    order: Order
    verdict: Verdict
    layer_errors: dict[str, float]  #: worst first
    tried: list[dict[str, Any]]  #: number of layers in float besides those that always are, and the resulting top-1


def fall_back(
    order: Order,
    kept: tuple[str, ...],
    export: Callable[[Order], None],
    compare: Callable[[], Verdict],
    *,
    say: Callable[[str], Any],
) -> Fallback:
    """Export in int8; while that costs more than the gate allows, keep more of the worst layers in float.

    Args:
        kept: names of the layers that always stay float.
        export: writes an order.
        compare: judges the file that was written last.
    """
    sample = order.calibration[: -(-NUM_SENSITIVITY // len(order.calibration[0]))]
    errors = layer_errors(order.network, sample, kept=kept)
    if not errors:
        raise UsageError("int8: there is no layer to quantize between the first and the last", help="use bf16 or fp16")
    worst, tried = list(errors), []
    counts = [count for count in ATTEMPTS if count < len(worst)]
    for count in counts:
        attempt = replace(order, keep_float=(*kept, *worst[:count]))
        export(attempt)
        verdict = compare()
        assert verdict.real is not None
        top1 = round(100 * verdict.real.correct_artifact / verdict.real.num_labeled, 3)
        tried.append({"num_float": count, "top1": top1})
        if not verdict.problems or count == counts[-1]:
            return Fallback(attempt, verdict, errors, tried)
        names = ", ".join(name.removeprefix("model.") for name in worst[:count][-3:])
        say(f"int8     {verdict.problems[0]}; {count} layers in float" + (f" (the last: {names})" if count else ""))
    raise AssertionError("the last attempt is always returned")
