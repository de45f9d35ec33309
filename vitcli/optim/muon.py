"""Muon for the weight matrices, AdamW for everything else, behaving as one optimizer."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer


class MuonWithAdamW(Optimizer):
    """torch's Muon takes matrices only (D_out, D_in); biases, norms and convolutions go to AdamW.

    Muon's step is scaled to the root mean square of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that both use the
    recipe's one learning rate. The two parts share this object's groups and state, which are saved as if of one.

    Args:
        groups: param groups with `params`, `names` and `weight_decay`.
    """

    def __init__(
        self, groups: list[dict], *, momentum: float, betas: tuple[float, float], eps: float, fused: bool
    ) -> None:
        super().__init__([dict(group) for group in groups], {})
        self.parts: list[Optimizer] = []
        if matrices := _only(groups, lambda p: p.ndim == 2):
            self.parts.append(Muon(matrices, momentum=momentum, adjust_lr_fn="match_rms_adamw"))
        if others := _only(groups, lambda p: p.ndim != 2):
            self.parts.append(AdamW(others, betas=betas, eps=eps, fused=fused))
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        self._share()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        first = 0
        for part in self.parts:
            last = first + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[first:last], self.state
            first = last


def _only(groups: list[dict], wanted: Callable[[nn.Parameter], bool]) -> list[dict]:
    """The groups with those of their parameters that are `wanted`; empty ones are left out."""
    chosen = []
    for group in groups:
        pairs = [(p, name) for p, name in zip(group["params"], group["names"], strict=True) if wanted(p)]
        if pairs:
            chosen.append({**group, "params": [p for p, _ in pairs], "names": [name for _, name in pairs]})
    return chosen
