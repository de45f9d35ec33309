"""Features of a network: one vector per image, from which kNN, linear probe, collapse monitor and `embed` start."""

from functools import partial

import torch
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.distributed import all_rows, gathered
from vitcli.errors import DivergedError
from vitcli.evaluators.evaluator import Answers, ShouldStop, never
from vitcli.evaluators.images import EvalImages


def features(network: nn.Module, images: Tensor) -> Tensor:
    """(B, C, H, W) normalized -> (B, D) float32: the output of `network.to_latent`, else that of the network.

    Every model of the registry has `to_latent`: the pooled features before its head.
    """
    latent = getattr(network, "to_latent", None)
    if not isinstance(latent, nn.Module):
        return network(images).float().flatten(1)
    seen: list[Tensor] = []

    def see(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.append(output)

    handle = latent.register_forward_hook(see)
    try:
        network(images)
    finally:
        handle.remove()
    return seen[-1].float().flatten(1)


def feature_batches(images: EvalImages, network: nn.Module, take: Answers, should_stop: ShouldStop = never) -> None:
    """Call `take` with each batch of this rank and its features (B, D). Raises Stopped as `EvalImages.visit` does."""

    def visit(batch: Batch) -> None:
        take(batch, images.answers(partial(features, network), batch.images))

    images.visit(network, visit, should_stop)


def all_features(
    images: EvalImages, network: nn.Module, *, should_stop: ShouldStop = never, answers: Answers | None = None
) -> Tensor:
    """(num_images, D) float32 on the device, in the order of the source; the same on all ranks.

    Raises Stopped as `EvalImages.visit` does, and DivergedError if a feature is infinite or NaN.
    """
    found: list[Tensor] = []

    def take(batch: Batch, rows: Tensor) -> None:
        found.append(rows)
        if answers:
            answers(batch, rows)

    feature_batches(images, network, take, should_stop)
    width = max(gathered(found[0].shape[1] if found else 0))  # a rank may be without images
    own = torch.cat([torch.empty(0, width, device=images.device), *found])
    rows = all_rows(own, images.num_images)
    if not rows.isfinite().all():
        raise DivergedError("the network's features are NaN or infinite", help="check its weights, or set amp: off")
    return rows
