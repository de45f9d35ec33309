"""The part of a report that shows what augmentation and mixing make of the first training batch."""

from collections.abc import Sequence

from vitcli.data.contact_sheet import Cell
from vitcli.distributed import World
from vitcli.engine.build_task import build_task
from vitcli.engine.first_batch import first_rows
from vitcli.engine.opened_data import open_data
from vitcli.log import Reporter
from vitcli.recipe.load import Recipe
from vitcli.report.markup import Html, many, tag
from vitcli.report.page import Section, picture, scrolling

#: images, and epochs in which each is shown
NUM_ROWS, NUM_DRAWS = 4, 4


def batch_section(recipe: Recipe, world: World, num_pictures: int) -> Section:
    """The first training images, as evaluation sees them and as the first epochs augment and mix them.

    num_pictures: that may be shown.

    Raises:
        VitcliError: the training images cannot be found or read.
    """
    rows = _rows(recipe, world)
    per_row = sum(len(cell.pictures) for cell in rows[0])
    rows = rows[: max(1, num_pictures // per_row)]
    lead = (
        "The first images of the training, as evaluation sees them and as the recipe augments and mixes them in the "
        "first epochs. Numbers are shares of the label."
    )
    return Section("Training images", [_table(rows)], lead)


def _rows(recipe: Recipe, world: World) -> list[list[Cell]]:
    silent = Reporter(enabled=False)
    recipe, splits = open_data(recipe.changed(cache="none"), silent)
    task = build_task(recipe, splits.class_names, world.device, silent)
    return first_rows(recipe, world.device, splits, task, NUM_ROWS, NUM_DRAWS)


def _table(rows: Sequence[Sequence[Cell]]) -> Html:
    headings = ["evaluation", *(f"epoch {number + 1}" for number in range(NUM_DRAWS))]
    head = tag("tr", *(tag("th", heading, scope="col") for heading in headings))
    body = [tag("tr", *map(_cell, row)) for row in rows]
    caption = "Images as evaluation and training see them"
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", scrolling(whole, caption), class_="batch")


def _cell(cell: Cell) -> Html:
    shown = tag("div", *(picture(one, cell.caption) for one in cell.pictures), class_="views")
    return tag("td", many([shown, cell.caption]))
