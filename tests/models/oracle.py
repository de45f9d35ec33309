"""timm's FastViT as the judge: the same weights in both, statistics and scales far from their first values."""

import timm
import torch
from torch import nn

from tests.support.tensors import randomized
from vitcli.models.registry import create_model

NAMES = ["fastvit_t8", "fastvit_t12", "fastvit_s12", "fastvit_sa12", "fastvit_sa24", "fastvit_sa36", "fastvit_ma36"]


def pair(name: str, *, num_classes: int = 10, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """(ours, timm's) with equal weights, in eval mode; outputs are of size 1."""
    torch.manual_seed(seed)
    theirs = randomized(timm.create_model(name, num_classes=num_classes))
    ours = create_model(name, num_classes=num_classes).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
