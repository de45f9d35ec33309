"""From features (B, D), which can be observed, to logits (B, num_classes): the parts of a classifier."""

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from vitcli.errors import UsageError


class Heads(NamedTuple):
    """The parts of a ViT's classifier, in the order in which features pass through them."""

    num_classes: int  #: 0: there is no head, the features are the output
    pre_logits: nn.Sequential  #: (B, D) -> (B, W), before the latent; empty: W = D
    drop: nn.Dropout
    head: nn.Module  #: (B, W) -> (B, num_classes or fine_tune_from)
    head_dist: nn.Module | None  #: the same for the distillation token
    fine_tune: nn.Module  #: (B, fine_tune_from) -> (B, num_classes)
    last_layers: tuple[str, ...]  #: names of the layers that compute the logits


def build_heads(
    dim: int,
    num_classes: int,
    *,
    pre_logits: int | None = None,
    hidden_dim: int | None = None,
    fine_tune_from: int | None = None,
    distilled: bool = False,
    drop_rate: float = 0.0,
) -> Heads:
    """The classifier of a ViT of width `dim`.

    Args:
        pre_logits: width W of a layer with tanh before the head (ViT's pre-training head); None or 0: none.
        hidden_dim: hidden width of a head with two layers; None or 0: one layer.
        fine_tune_from: the head has this many classes, and a linear layer maps its logits to `num_classes`.
        distilled: a second head for the distillation token (DeiT).
        drop_rate: dropout before the heads, 0..1; none without a head.
    """
    before = nn.Sequential()
    if pre_logits:
        before.add_module("fc", nn.Linear(dim, pre_logits))
        before.add_module("act", nn.Tanh())
    kept = fine_tune_from if num_classes else None
    build = partial(_head, pre_logits or dim, hidden_dim, kept or num_classes)
    names = ("head", "head_dist") if distilled else ("head",)
    return Heads(
        num_classes=num_classes,
        pre_logits=before,
        drop=nn.Dropout(drop_rate if num_classes else 0.0),
        head=build(),
        head_dist=build() if distilled and num_classes else None,
        fine_tune=nn.Linear(kept, num_classes) if kept else nn.Identity(),
        last_layers=tuple(f"{name}.2" if hidden_dim else name for name in names),
    )


def mlp_head(dim: int, hidden_dim: int, num_classes: int, act: type[nn.Module]) -> nn.Sequential:
    """A classifier of two layers: (B, D) -> (B, num_classes)."""
    return nn.Sequential(nn.Linear(dim, hidden_dim), act(), nn.Linear(hidden_dim, num_classes))


def _head(dim: int, hidden_dim: int | None, num_classes: int) -> nn.Module:
    if not num_classes:
        return nn.Identity()
    return mlp_head(dim, hidden_dim, num_classes, nn.GELU) if hidden_dim else nn.Linear(dim, num_classes)


class Latent(nn.Module):
    """Passes features (B, D) on unchanged; a forward hook on it receives them.

    Raises:
        UsageError: it was called with something else, for example with images.
    """

    def forward(self, latent: Tensor) -> Tensor:
        if latent.ndim != 2:
            raise UsageError(
                f"`to_latent` passes features (B, D) on, not {tuple(latent.shape)}",
                help="`model.latent(images)` computes features; a forward hook on `model.to_latent` receives them",
            )
        return latent
