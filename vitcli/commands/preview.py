"""`vitcli data preview`: the first training batch as the network will see it, on one page."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from vitcli.data.batch import Batch
from vitcli.data.contact_sheet import Cell, contact_sheet, displayed
from vitcli.data.datasets import Splits
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.sampler import BatchPlan
from vitcli.data.transforms import to_uint8_tensor
from vitcli.deploy.predictions import check_writable
from vitcli.distributed import joined
from vitcli.engine.build import build_batches, build_training
from vitcli.engine.opened_data import open_data
from vitcli.engine.preflight import check_device, check_frozen, check_launch, check_weights
from vitcli.engine.training import Training
from vitcli.errors import UsageError
from vitcli.image_size import in_words
from vitcli.log import Reporter
from vitcli.recipe.load import Recipe


@dataclass(frozen=True)
class FirstBatchAgain(BatchPlan):
    """The images of the first batch in every epoch, each time augmented as that epoch would."""

    def draws(self, epoch: int, step_in_epoch: int, micro: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
        return super().draws(0, 0, micro, rank)


def preview(recipe: Recipe, out: Path, *, num_images: int = 6, num_draws: int = 4) -> None:
    """Write a page with images of the batch that a training by `recipe` would begin with.

    Args:
        out: the page, .png or .jpg.
        num_images: rows; those that the batch begins with.
        num_draws: how often each is augmented: as in the first epochs, one after the other.

    Raises:
        VitcliError: what a training would refuse; see `errors.py`.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UsageError(f"cannot write a picture to {out}", help="give a file name that ends in .png or .jpg")
    check_writable(out)
    launch_notes = check_launch(recipe)
    check_weights(recipe)
    check_frozen(recipe)
    with joined(recipe.system.device, distributed=False) as world:
        reporter = Reporter(enabled=True)
        reporter.notes(recipe.notes, launch_notes, check_device(recipe, world.device))
        recipe, splits = open_data(recipe.changed(cache="none"), reporter)  # only a few images are needed
        training = build_training(recipe, world, out.parent, splits, Reporter(enabled=False), fresh=True)
        draws = list(_first_batches(training, splits, num_draws))
        rows = [_row(training, splits, draws, number) for number in range(min(num_images, len(draws[0])))]
    recipe = training.recipe
    title = f"{recipe.name}: the first {len(rows)} of the {len(draws[0])} images of the first batch"
    views = f", {training.task.num_views} views of each" if training.task.num_views > 1 else ""
    channels = recipe.model.in_channels
    bands = f", {channels} channels, of which {'3 are' if channels > 3 else 'one is'} shown" * (channels not in (1, 3))
    subtitle = f"{in_words(recipe.augmentation.image_resize)}, seed {recipe.system.seed}{views}{bands}"
    headings = ["evaluation", *(f"training, epoch {number + 1}" for number in range(num_draws))]
    contact_sheet(title, subtitle, headings, rows).save(out)
    reporter.say(f"wrote {out}: {len(rows)} images, each as evaluation and as {num_draws} epochs of training see it")


def _first_batches(training: Training, splits: Splits, num_draws: int) -> Iterator[Batch]:
    """The first batch, prepared by the task on the device, as the epochs 0, 1, … would augment it."""
    plan = FirstBatchAgain(**{field.name: getattr(training.plan, field.name) for field in fields(BatchPlan)})
    load = build_batches(training.recipe, training.world, splits, plan, training.task.num_views)
    for epoch in range(num_draws):
        step = epoch * plan.steps_per_epoch
        batch = next(iter(load(start_step=step, total_steps=step + 1)))
        yield training.task.prepare(batch.to(training.world.device), training.recipe.system.seed)


def _row(training: Training, splits: Splits, draws: list[Batch], number: int) -> list[Cell]:
    """The image `number` of the batch: its evaluation crop, then each draw."""
    recipe, source = training.recipe, splits.train
    transform = build_eval_transform(recipe.augmentation, in_channels=recipe.model.in_channels)
    index = int(draws[0].indices[number])
    crop = displayed(to_uint8_tensor(transform(source.load(index))).numpy() / 255)
    name = source.name(index).rpartition("/")[2]
    if source.targets is not None and source.targets.ndim == 1 and source.class_names:
        name = f"{source.class_names[source.targets[index]]}, {name}"
    cells = [Cell((crop,), name)]
    for batch in draws:
        pictures = tuple(_denormalized(view[number], recipe) for view in batch.views)
        target = None if batch.targets is None else batch.targets[number]
        cells.append(Cell(pictures, _label(target, splits.class_names or [])))
    return cells


def _denormalized(image: Tensor, recipe: Recipe) -> Image.Image:
    """(C, H, W) as the network takes it -> a picture."""
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (recipe.augmentation.mean, recipe.augmentation.std))
    return displayed(image.float().cpu().numpy() * std + mean)


def _label(target: Tensor | None, class_names: list[str]) -> str:
    """cat, or "cat 0.70 / dog 0.30" where images were mixed; the largest share first."""
    if target is None:
        return "no label"
    if target.ndim == 0:
        return class_names[int(target)]
    shares = {name: share for name, share in zip(class_names, target.tolist(), strict=True) if share > 0}
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return " / ".join(name if share == 1 else f"{name} {share:.2f}" for name, share in ordered)
