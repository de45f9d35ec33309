"""How the training images are dealt out to steps and ranks, and the batches of one rank."""

from collections.abc import Callable, Iterable
from functools import partial

from vitcli.data.balanced import balanced_order
from vitcli.data.batch import Batch
from vitcli.data.cached import CachedImages
from vitcli.data.datasets import Splits
from vitcli.data.device_batches import DeviceBatches, on_the_device
from vitcli.data.loader import build_train_loader, num_workers
from vitcli.data.pixel_format import PixelFormat
from vitcli.data.sampler import BatchPlan
from vitcli.data.source import Source
from vitcli.data.views import build_views
from vitcli.distributed import World
from vitcli.optim.schedule import accumulation_steps
from vitcli.recipe.load import Recipe


def build_plan(recipe: Recipe, world: World, images: Source) -> BatchPlan:
    """How the training images are dealt out to steps, micro-steps and ranks."""
    section, optim, seed = recipe.dataset, recipe.optimizer, recipe.system.seed
    repeats = max(1, recipe.augmentation.aug_repeats)
    order = balanced_order(images, -(-len(images) // repeats), seed) if section.sampler == "balanced" else None
    return BatchPlan(
        num_samples=len(images),
        batch_size=section.batch_size,
        world_size=world.size,
        accumulation=accumulation_steps(
            section.batch_size, world.size, optim.gradient_accumulation_steps, optim.global_batch_size
        ),
        seed=seed,
        shuffle=section.shuffle,
        drop_remainder=section.drop_remainder,
        repeats=repeats,
        balanced=order,
    )


def build_batches(
    recipe: Recipe, world: World, splits: Splits, plan: BatchPlan, num_views: int
) -> Callable[..., Iterable[Batch]]:
    """start_step=… -> this rank's micro-batches from there to the end of the run."""
    images: Source = splits.train
    views = build_views(recipe.augmentation, num_views, in_channels=recipe.model.in_channels)
    where = {
        "seed": recipe.system.seed,
        "rank": world.rank,
        "total_steps": recipe.scheduler.epoch_size * plan.steps_per_epoch,
    }
    if recipe.dataset.cache == "device":
        return partial(DeviceBatches, on_the_device(images, views, world.device), views, plan, **where)
    if recipe.dataset.cache == "ram":
        images = CachedImages(images, PixelFormat(recipe.model.in_channels, recipe.augmentation.pixel_range))
    return partial(
        build_train_loader,
        images,
        views,
        plan,
        **where,
        num_workers=num_workers(recipe.dataset, world.local_size),
        on_bad_image=recipe.dataset.on_bad_image,
        device=world.device,
    )
