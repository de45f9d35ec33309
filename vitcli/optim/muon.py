"""Muon for the matrices and convolutions inside a network, AdamW for the rest, as one optimizer.

Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/): momentum, then the nearest matrix with equal
singular values. The step is scaled to the root mean square of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that both
use the recipe's one learning rate. For matrices this is `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`.
"""

# pyright: reportPrivateImportUsage=false

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from vitcli.optim.adam import ADAM_STATE, adamw_update
from vitcli.optim.device_step import DeviceOptimizer, Part
from vitcli.optim.param_groups import split_groups

#: of the iteration x <- a x + (b (x x^T) + c (x x^T)^2) x, from the source
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPS = 1e-7


class MuonWithAdamW(DeviceOptimizer):
    """Each param group is split in two: `muon: True` and `muon: False`.

    Args:
        groups: param groups with `params`, `names` and `weight_decay`.
        module: the task or network that owns the parameters; its structure decides, see `hidden_matrices`.
        momentum: of Muon, in Nesterov's form.
        betas, eps: of AdamW.
    """

    def __init__(
        self, groups: list[dict], module: nn.Module, *, momentum: float, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(split_groups(groups, hidden_matrices(module), "muon"), momentum=momentum, betas=betas, eps=eps)

    def describe(self) -> str:
        """Which share of the trained parameters each of the two has."""
        sizes = {True: 0, False: 0}
        for group in self.param_groups:
            sizes[group["muon"]] += sum(p.numel() for p in group["params"])
        share = 100 * sizes[True] / sum(sizes.values())
        return f"muon trains {share:.1f} % of the parameters, adamw the rest"

    def state_layout(self, group: dict[str, Any]) -> dict[str, float | None]:
        return {"momentum_buffer": None} if group["muon"] else ADAM_STATE

    def update_part(self, part: Part) -> None:
        (_muon_update if part.group["muon"] else adamw_update)(part)


def hidden_matrices(module: nn.Module) -> set[int]:
    """Ids of the parameters that Muon trains: the weights of linear layers and convolutions, with two exceptions.

    A depthwise convolution is not a matrix (one input channel per output), and the network's `classifiers` are left to
    AdamW, as Muon's author advises. Embeddings, positions, tokens and scales are not weights of such layers.

    Args:
        module: a network, or a task with one in `network`.
    """
    network = getattr(module, "network", module)
    last = (*getattr(network, "classifiers", ()), "fine_tune")
    classifiers = {id(layer) for name, layer in network.named_modules() if name in last}
    layers = [layer for layer in module.modules() if id(layer) not in classifiers]
    weights = [layer.weight for layer in layers if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd))]
    weights += [layer.in_proj_weight for layer in layers if isinstance(layer, nn.MultiheadAttention)]
    return {id(weight) for weight in weights if weight is not None and min(weight.shape[:2]) > 1}


def orthogonalize(matrices: Tensor) -> Tensor:
    """(K, M, N), M <= N -> the same shape: about U V^T of each matrix U S V^T (singular values 0.7 to 1.2 remain).

    Five steps of a quintic Newton-Schulz iteration, as in `torch.optim.Muon`.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(working_dtype(matrices.device))
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=EPS)
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (K, M, M)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def working_dtype(device: torch.device) -> torch.dtype:
    """bfloat16, as in the source; float32 on CPUs, where emulated bfloat16 took ten times as long."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def _muon_update(part: Part) -> None:
    group, buffers = part.group, part.state["momentum_buffer"]
    torch._foreach_lerp_(buffers, part.gradients, 1 - group["momentum"])
    directions = torch._foreach_lerp(part.gradients, buffers, group["momentum"])
    torch._foreach_mul_(part.params, 1 - group["lr"] * group["weight_decay"])
    same_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, direction in enumerate(directions):
        same_shape[tuple(direction.shape)].append(i)
    for shape, indices in same_shape.items():
        matrices = torch.stack([directions[i].flatten(1) for i in indices])  # (K, out, in * kh * kw)
        is_tall = matrices.shape[1] > matrices.shape[2]
        result = orthogonalize(matrices.mT if is_tall else matrices)
        updates = (result.mT if is_tall else result).to(matrices.dtype).unflatten(2, shape[1:])
        scale = 0.2 * max(matrices.shape[1:]) ** 0.5
        torch._foreach_add_([part.params[i] for i in indices], list(updates.unbind()), alpha=-group["lr"] * scale)
