"""What evaluators run a network on, all images of a split, each once over all ranks; and the features that it gives.

kNN, linear probe, collapse monitor and `embed` start from features: one vector per image.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from vitcli.data.batch import BadSample, Batch
from vitcli.data.crops import Crops, build_crop_transform
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.kept_batches import KeptBatches
from vitcli.data.loader import build_eval_loader, num_workers
from vitcli.data.mixing import Normalizer
from vitcli.data.source import Source
from vitcli.distributed import all_rows, any_rank, gathered
from vitcli.errors import DivergedError
from vitcli.evaluators.evaluator import Answers, Setting, ShouldStop, Stopped, UnreadableImages, never
from vitcli.terminal import phase


class EvalImages:
    """This rank's share of `source` under the evaluation transform of the recipe.

    crops: also that many crops of each image; the batches then have one view (B, 1 + crops, C, H, W), and hold fewer
    images, so that the network sees about as many at a time.
    title: what the terminal says while they are visited.
    """

    def __init__(
        self, setting: Setting, source: Source, *, crops: Crops | None = None, title: str = "evaluating"
    ) -> None:
        recipe, world = setting.recipe, setting.world
        augmentation, in_channels = recipe.augmentation, recipe.model.in_channels
        self.device, self.autocast = world.device, setting.autocast
        self.num_images, self.num_classes = len(source), len(source.class_names or ())
        self.num_own = -(-len(source) // world.size)  #: of this rank, or one more
        self.title = title
        self.batch_size = recipe.dataset.val_batch_size or recipe.dataset.batch_size
        self.normalize = Normalizer(augmentation.mean, augmentation.std, in_channels)
        if crops:
            transform = build_crop_transform(crops, augmentation, in_channels=in_channels)
        else:
            transform = build_eval_transform(augmentation, in_channels=in_channels)
        batches = build_eval_loader(
            source,
            transform,
            batch_size=max(1, self.batch_size // (1 + crops.num_crops)) if crops else self.batch_size,
            rank=world.rank,
            world_size=world.size,
            num_workers=num_workers(recipe.dataset, world.local_size),
            on_bad_image="list",
            device=world.device,
        )
        self.batches = batches if recipe.dataset.cache == "none" else KeptBatches(batches)

    @torch.inference_mode()
    def visit(self, network: nn.Module, visit: Callable[[Batch], None], should_stop: ShouldStop) -> None:
        """Call `visit` with each batch, on the device, while `network` is in evaluation mode.

        After an unreadable image, the others are read but not visited, so that all unreadable ones are found.

        Raises:
            Stopped: `should_stop` returned True between two batches, on any rank.
            UnreadableImages: on all ranks, with the images of all.
        """
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        seen, stopped = 0, False
        bad: list[BadSample] = []
        try:
            with phase(self.title, self.num_own) as advance:
                for batch in self.batches:
                    if stopped := should_stop():
                        break
                    bad += batch.bad
                    if not bad:
                        visit(batch)
                    seen += len(batch)
                    advance(len(batch))
        finally:
            for module, training in modes:
                module.training = training
        if any_rank(stopped):
            raise Stopped
        if all_bad := [sample for of_rank in gathered(bad) for sample in of_rank]:
            raise UnreadableImages(sorted(all_bad, key=lambda sample: sample.index), self.num_images)
        total = sum(gathered(seen))
        assert total == self.num_images, f"evaluated {total} of {self.num_images} images"

    def answers(self, network: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """uint8 images (N, C, H, W) -> what `network` makes of them once normalized, float32; some at a time."""
        chunks = pixels.chunk(math.ceil(len(pixels) / self.batch_size))
        with self.autocast():
            return torch.cat([network(self.normalize(chunk)).float() for chunk in chunks])

    def crop_answers(self, network: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """As `answers`, for the crops of each image: (B, 1 + crops, C, H, W) -> (B, 1 + crops, …)."""
        return self.answers(network, pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])


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
