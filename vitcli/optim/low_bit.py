"""AdamW whose moments take 16, 8 or 4 bits per parameter instead of 32, to train a larger network in the same memory.

The weights are those of torchao's AdamW8bit, AdamW4bit and AdamWFp8 to the last bit. Those compile their step for each
shape of tensor; this one needs no compiler and no wait.
"""

# pyright: reportPrivateImportUsage=false

from typing import Any

from torch import Tensor

from vitcli.optim.adam import ADAM_STATE, adamw_update
from vitcli.optim.device_step import DeviceOptimizer, Layout, Part
from vitcli.optim.low_bit_formats import Format, moment_formats
from vitcli.optim.param_groups import split_groups

#: smaller tensors stay in float32, as in bitsandbytes and torchao: they matter more and take little
MIN_SIZE = 4096
MOMENTS = ("exp_avg", "exp_avg_sq")


class LowBitAdamW(DeviceOptimizer):
    """Each param group is split in two: `low_bit: True`, the large tensors, and `low_bit: False`, plain AdamW.

    A low-bit moment is two plain tensors of the state: `exp_avg.codes` and `exp_avg.scales`.

    Args:
        groups: param groups with `params`, `names` and `weight_decay`.
        format: 8bit, 4bit, fp8 or bf16.
    """

    def __init__(self, groups: list[dict], format: str, *, betas: tuple[float, float], eps: float) -> None:
        params: list[Tensor] = [p for group in groups for p in group["params"]]
        self.name = format
        self.formats = dict(zip(MOMENTS, moment_formats(format, params[0].device), strict=True))
        block = self.formats["exp_avg"].block
        large = {id(p) for p in params if p.numel() >= MIN_SIZE and p.numel() % block == 0}
        super().__init__(split_groups(groups, large, "low_bit"), betas=betas, eps=eps)

    def describe(self) -> str:
        """Which share of the parameters has low-bit moments, and what that saves."""
        sizes = {True: 0, False: 0}
        for group in self.param_groups:
            sizes[group["low_bit"]] += sum(p.numel() for p in group["params"])
        low, all_ = sizes[True], sum(sizes.values())
        taken = sum(format.num_bytes(low) for format in self.formats.values()) + 8 * sizes[False]
        bits, megabytes = self.formats["exp_avg"].bits, f"{taken / 1e6:.1f} MB instead of {8 * all_ / 1e6:.1f} MB"
        share = f"{100 * low / all_:.1f} % of the parameters have moments of {bits} bits"
        return f"adamw_{self.name}: {share}; the moments take {megabytes}"

    def state_layout(self, group: dict[str, Any]) -> Layout:
        if not group["low_bit"]:
            return ADAM_STATE
        layout: dict[str, Any] = {"step": 0.0}
        for moment, format in self.formats.items():
            layout[f"{moment}.codes"] = lambda p, format=format: format.zeros(p.numel(), p.device)[0]
            layout[f"{moment}.scales"] = lambda p, format=format: format.zeros(p.numel(), p.device)[1]
        return layout

    def update_part(self, part: Part) -> None:
        if not part.group["low_bit"]:
            adamw_update(part)
            return
        for single in part.singles():
            self._update_single(single)

    def update_unless(self, bad: Tensor, parts: list[Part]) -> None:
        """One large tensor at a time: a copy of all weights would take the memory that is saved."""
        for part in parts:
            for piece in part.singles() if part.group["low_bit"] else [part]:
                super().update_unless(bad, [piece])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for state in self.state.values():  # torch gives every value the data type of the parameter, which holds it
            for moment, format in self.formats.items():
                if (name := f"{moment}.codes") in state:
                    state[name] = state[name].to(format.dtype)

    def _update_single(self, part: Part) -> None:
        """AdamW for one tensor in float32, row by row whatever its layout in memory; torchao's order of operations."""
        (p,), (gradient,), group = part.params, part.gradients, part.group
        state = {name: value for name, (value,) in part.state.items()}
        state["step"] += 1
        gradient, lr = gradient.flatten(), state["step"].new_full((), group["lr"])
        first, second = (
            _averaged(state, moment, self.formats[moment], value, beta)
            for moment, value, beta in zip(MOMENTS, (gradient, gradient.square()), group["betas"], strict=True)
        )
        correction1, correction2 = (1 - beta ** state["step"] for beta in group["betas"])
        weights = p.flatten()
        weights = weights - lr * group["weight_decay"] * weights
        denominators = second.sqrt() / correction2.sqrt() + group["eps"]
        p.copy_((weights - lr * (first / correction1) / denominators).view(p.shape))


def _averaged(state: dict[str, Tensor], moment: str, format: Format, value: Tensor, beta: float) -> Tensor:
    """Take `value` (n,) into a moment; returns it in float32, before it is rounded."""
    codes, scales = state[f"{moment}.codes"], state[f"{moment}.scales"]
    average = format.decode(codes, scales).lerp(value, 1 - beta)
    for old, new in zip((codes, scales), format.encode(average), strict=True):
        old.copy_(new)
    return average
