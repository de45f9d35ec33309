"""Builds the evaluation that a recipe asks for."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from vitcli.data.crops import Crops, CropTransform, build_crop_transform
from vitcli.data.eval_transform import EvalTransform, build_eval_transform
from vitcli.data.loader import Batches, build_eval_loader, num_workers
from vitcli.data.mixing import Normalizer
from vitcli.data.source import Source
from vitcli.distributed import World
from vitcli.engine.precision import build_autocast
from vitcli.evaluators.top1 import EvalResult, evaluate, evaluate_crops
from vitcli.recipe.load import Recipe


def build_evaluate(recipe: Recipe, images: Source, world: World) -> Callable[..., EvalResult]:
    """A function of (model, should_stop) that evaluates on `images`."""
    transform = build_eval_transform(recipe.augmentation, in_channels=recipe.model.in_channels)
    loader = _eval_loader(recipe, images, world, transform, batch_size=_eval_batch_size(recipe))
    parts = _eval_parts(recipe, images, world)

    def run(model: nn.Module, should_stop: Callable[[], bool] = lambda: False) -> EvalResult:
        return evaluate(model, loader, should_stop=should_stop, **parts)

    return run


def build_evaluate_crops(
    recipe: Recipe, images: Source, world: World, crops: Crops
) -> Callable[..., tuple[EvalResult, EvalResult]]:
    """A function of the model: the result by the single crop, and by the average of `crops`.

    A batch holds as many crops as it holds images otherwise, or those of one image where these are more.
    """
    batch_size = _eval_batch_size(recipe)
    transform = build_crop_transform(crops, recipe.augmentation, in_channels=recipe.model.in_channels)
    loader = _eval_loader(recipe, images, world, transform, batch_size=max(1, batch_size // (1 + crops.num_crops)))
    parts = _eval_parts(recipe, images, world)
    return partial(evaluate_crops, batches=loader, average=crops.average, chunk_size=batch_size, **parts)


def _eval_batch_size(recipe: Recipe) -> int:
    return recipe.dataset.val_batch_size or recipe.dataset.batch_size


def _eval_loader(
    recipe: Recipe, images: Source, world: World, transform: EvalTransform | CropTransform, *, batch_size: int
) -> Batches:
    return build_eval_loader(
        images,
        transform,
        batch_size=batch_size,
        rank=world.rank,
        world_size=world.size,
        num_workers=num_workers(recipe.dataset, world.local_size),
        pin_memory=world.device.type == "cuda",
    )


def _eval_parts(recipe: Recipe, images: Source, world: World) -> dict[str, Any]:
    return {
        "prepare": Normalizer(recipe.augmentation.mean, recipe.augmentation.std, recipe.model.in_channels),
        "num_images": len(images),
        "device": world.device,
        "autocast": build_autocast(recipe, world.device),
    }
