"""The first training batch as pictures: images as evaluation sees them, and as several epochs would augment them."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitcli.data.batch import Batch
from vitcli.data.contact_sheet import Cell, contact_sheet, displayed
from vitcli.data.datasets import Splits
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.sampler import BatchPlan
from vitcli.data.source import Source
from vitcli.data.transforms import to_uint8_tensor
from vitcli.distributed import World
from vitcli.engine.build_batches import build_batches, build_plan
from vitcli.recipe.load import Recipe
from vitcli.tasks.task import Task

#: of `first_rows`: more would only be loaded to be mixed with those that are shown
_MOST_LOADED = 32


@dataclass(frozen=True)
class FirstBatchAgain(BatchPlan):
    """The images of the first batch in every epoch, each time augmented as that epoch would."""

    def draws(self, epoch: int, step_in_epoch: int, micro: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
        return super().draws(0, 0, micro, rank)


def first_batches(
    recipe: Recipe, world: World, splits: Splits, plan: BatchPlan, task: Task, num_draws: int
) -> Iterator[Batch]:
    """The first batch, prepared by the task on the device, as the epochs 0, 1, … would augment it."""
    plan = FirstBatchAgain(**{field.name: getattr(plan, field.name) for field in fields(BatchPlan)})
    load = build_batches(recipe, world, splits, plan, task.num_views)
    for epoch in range(num_draws):
        step = epoch * plan.steps_per_epoch
        batch = next(iter(load(start_step=step, total_steps=step + 1)))
        yield task.prepare(batch.to(world.device), recipe.system.seed)


def first_page(recipe: Recipe, device: torch.device, splits: Splits, task: Task) -> Image.Image:
    """`first_rows` on one page. Raises as it does."""
    num_rows, num_draws = 6, 3
    rows = first_rows(recipe, device, splits, task, num_rows, num_draws)
    headings = ["evaluation", *(f"training, epoch {number + 1}" for number in range(num_draws))]
    return contact_sheet(recipe.name, "the first images of the first batch", headings, rows)


def first_rows(
    recipe: Recipe, device: torch.device, splits: Splits, task: Task, num_rows: int, num_draws: int
) -> list[list[Cell]]:
    """Some images of the first batch, a row for each; of a large batch only 32 are loaded, and mixed with each other.

    Raises:
        VitcliError: they cannot be read.
    """
    few = {"batch_size": min(recipe.dataset.batch_size, _MOST_LOADED), "num_parallel_workers": 0, "cache": "none"}
    recipe = recipe.changed(**few, global_batch_size=None, gradient_accumulation_steps=1)
    alone = World(0, 1, 0, 1, device)
    plan = build_plan(recipe, alone, splits.train)
    draws = list(first_batches(recipe, alone, splits, plan, task, num_draws))
    return [row_of(recipe, splits, draws, number) for number in range(min(num_rows, len(draws[0])))]


def row_of(recipe: Recipe, splits: Splits, draws: list[Batch], number: int) -> list[Cell]:
    """The image `number` of the batch: its evaluation crop, then each draw."""
    source = splits.train
    index = int(draws[0].indices[number])
    name = source.name(index).rpartition("/")[2]
    if source.targets is not None and source.targets.ndim == 1 and source.class_names:
        name = f"{source.class_names[source.targets[index]]}, {name}"
    cells = [Cell((evaluation_crop(recipe, source, index),), name)]
    for batch in draws:
        pictures = tuple(denormalized(view[number], recipe) for view in batch.views)
        target = None if batch.targets is None else batch.targets[number]
        cells.append(Cell(pictures, label(target, splits.class_names or [])))
    return cells


def evaluation_crop(recipe: Recipe, source: Source, index: int) -> Image.Image:
    """The image as the network sees it in evaluation. Raises BadImage."""
    transform = build_eval_transform(recipe.augmentation, in_channels=recipe.model.in_channels)
    return displayed(to_uint8_tensor(transform(source.load(index))).numpy() / 255)


def denormalized(image: Tensor, recipe: Recipe) -> Image.Image:
    """(C, H, W) as the network takes it -> a picture."""
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (recipe.augmentation.mean, recipe.augmentation.std))
    return displayed(image.float().cpu().numpy() * std + mean)


def label(target: Tensor | None, class_names: list[str]) -> str:
    """cat, or "cat 0.70 / dog 0.30" where images were mixed; the largest share first."""
    if target is None:
        return "no label"
    if target.ndim == 0:
        return class_names[int(target)]
    shares = {name: share for name, share in zip(class_names, target.tolist(), strict=True) if share > 0}
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return " / ".join(name if share == 1 else f"{name} {share:.2f}" for name, share in ordered)
