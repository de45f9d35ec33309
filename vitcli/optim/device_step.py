"""The base of our own optimizers: a step that never waits for the device and can be dropped on it.

torch's fused kernels (adamw, adam, sgd) can do both. torch's other optimizers cannot, so they are written here in terms
of this base. It uses torch's `_foreach_...` functions, which do one operation on many tensors at once.
"""

# pyright: reportPrivateImportUsage=false

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from vitcli.parallel.shards import own_part

#: what is kept for a parameter: name -> start value of a scalar (), None: zeros like the parameter, or what makes it
Layout = Mapping[str, float | Callable[[Tensor], Tensor] | None]

#: integers of the same size, by bytes per element
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Part(NamedTuple):
    """The parameters of one group that have a gradient. The tensors of a group are assumed to step together."""

    group: dict[str, Any]
    params: list[Tensor]
    gradients: list[Tensor]
    state: dict[str, list[Tensor]]  #: name -> one tensor for each parameter

    def decayed(self) -> list[Tensor]:
        """The gradients with L2 decay: g + weight_decay * p."""
        if not self.group["weight_decay"]:
            return self.gradients
        return list(torch._foreach_add(self.gradients, self.params, alpha=self.group["weight_decay"]))

    def singles(self) -> "list[Part]":
        """A part of its own for each parameter."""
        each = enumerate(zip(self.params, self.gradients, strict=True))
        return [
            Part(self.group, [p], [gradient], {name: [values[i]] for name, values in self.state.items()})
            for i, (p, gradient) in each
        ]


class DeviceOptimizer(Optimizer):
    """A subclass says what its state is and how one part moves, in place and without reading a tensor on the host.

    Args:
        groups: param groups with `params` and `weight_decay`.
        defaults: options that every group gets.
    """

    #: torch's flag for "takes `found_inf`": the loss scaler and the loop hand it over instead of asking the device
    _step_supports_amp_scaling = True

    def __init__(self, groups: list[dict], **defaults: Any) -> None:
        # capturable: load_state_dict then keeps `step` on the parameter's device
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "capturable": True, **defaults})

    def state_layout(self, group: dict[str, Any]) -> Layout:
        """What is kept for each parameter of the group."""
        raise NotImplementedError

    def update_part(self, part: Part) -> None:
        """Move `part.params` and `part.state` in place."""
        raise NotImplementedError

    def update(self, parts: list[Part]) -> None:
        """Move all parts; for an optimizer that looks at all gradients together."""
        for part in parts:
            self.update_part(part)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; where `found_inf` is set and not 0, weights and state keep every bit."""
        assert getattr(self, "grad_scale", None) is None, "gradients are unscaled before the step"
        parts = [part for group in self.param_groups if (part := self._part(group)).params]
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and not is_on_host(found_inf):
            self.update_unless(found_inf.view(()) != 0, parts)
        elif not found_inf:
            self.update(parts)

    def update_unless(self, bad: Tensor, parts: list[Part]) -> None:
        """Update, then take the old bits where `bad` () is true and the new ones elsewhere."""
        changed = [t for part in parts for tensors in (part.params, *part.state.values()) for t in tensors]
        old = bits_where(bad, changed)
        self.update(parts)
        put_back_where(bad, changed, old)

    def _part(self, group: dict[str, Any]) -> Part:
        """What this rank holds of the group; the parameters without a gradient stay as they are."""
        params = [p for p in group["params"] if p.grad is not None]
        layout = self.state_layout(group)
        for p in params:
            state = self.state[p]
            for name, start in layout.items():
                if name not in state:
                    state[name] = _first(start, p)
        kept = {name: [own_part(self.state[p][name]) for p in params] for name in layout}
        return Part(group, [own_part(p) for p in params], [own_part(p.grad) for p in params], kept)


def bits_where(chosen: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Copies of the tensors read as integers where `chosen` () is true, else zeros.

    Bits are chosen by products with 0 and 1: exact, and blind to NaN.
    """
    return list(torch._foreach_mul(_as_integers(tensors), chosen.int()))


def put_back_where(chosen: Tensor, tensors: list[Tensor], bits: list[Tensor]) -> None:
    """Give `tensors` what `bits_where(chosen, …)` took, where `chosen` () is true; else they keep every bit."""
    present = _as_integers(tensors)
    torch._foreach_mul_(present, (~chosen).int())
    torch._foreach_add_(present, bits)


def _as_integers(tensors: list[Tensor]) -> list[Tensor]:
    return [t.view(_INTEGERS[t.element_size()]) for t in tensors]


def _first(start: float | Callable[[Tensor], Tensor] | None, p: Tensor) -> Tensor:
    if callable(start):
        return start(p)
    return torch.zeros_like(p) if start is None else torch.full((), start, dtype=torch.float32, device=p.device)


def is_on_host(tensor: Tensor) -> bool:
    """Whether the host can read `tensor` without waiting for a device."""
    return tensor.device.type == "cpu"
