"""`vitcli data preview`: the first training batch as the network will see it, on one page."""

from pathlib import Path

from vitcli.data.contact_sheet import contact_sheet
from vitcli.disk import check_writable
from vitcli.distributed import joined
from vitcli.engine.build import build_training
from vitcli.engine.first_batch import first_batches, row_of
from vitcli.engine.opened_data import open_data
from vitcli.engine.preflight import check_device, check_launch
from vitcli.errors import UsageError
from vitcli.image_size import in_words
from vitcli.log import Reporter
from vitcli.recipe.load import Recipe


def preview(recipe: Recipe, out: Path, *, num_images: int = 6, num_draws: int = 4) -> None:
    """Write a page with images of the batch that a training by `recipe` would begin with.

    Args:
        out: the page, .png or .jpg.
        num_images: rows; those that the batch begins with.
        num_draws: how often each is augmented: as in the first epochs, one after the other.

    Raises:
        VitcliError: what a training would refuse, except that no weights are needed; see `errors.py`.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UsageError(f"cannot write a picture to {out}", help="give a file name that ends in .png or .jpg")
    check_writable(out)
    launch_notes = check_launch(recipe)
    with joined(recipe.system.device, distributed=False) as world:
        reporter = Reporter(enabled=True)
        reporter.notes(recipe.notes, launch_notes, check_device(recipe, world.device))
        recipe, splits = open_data(recipe.changed(cache="none"), reporter)  # only a few images are needed
        training = build_training(recipe, world, out.parent, splits, Reporter(enabled=False), fresh=True)
        recipe = training.recipe
        draws = list(first_batches(recipe, world, splits, training.plan, training.task, num_draws))
        rows = [row_of(recipe, splits, draws, number) for number in range(min(num_images, len(draws[0])))]
    title = f"{recipe.name}: the first {len(rows)} of the {len(draws[0])} images of the first batch"
    views = f", {training.task.num_views} views of each" if training.task.num_views > 1 else ""
    channels = recipe.model.in_channels
    bands = f", {channels} channels, of which {'3 are' if channels > 3 else 'one is'} shown" * (channels not in (1, 3))
    subtitle = f"{in_words(recipe.augmentation.image_resize)}, seed {recipe.system.seed}{views}{bands}"
    headings = ["evaluation", *(f"training, epoch {number + 1}" for number in range(num_draws))]
    contact_sheet(title, subtitle, headings, rows).save(out)
    reporter.say(f"wrote {out}: {len(rows)} images, each as evaluation and as {num_draws} epochs of training see it")
