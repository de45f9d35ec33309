"""`vitcli data`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Typer

from vitcli.cli.options import JsonOption, PluginOption
from vitcli.cli.recipe_keys import with_keys
from vitcli.recipe.load import Recipe

data_app = Typer(no_args_is_help=True, help="Look at a data set before training.")


@data_app.command("show")
@with_keys(
    "dataset", "train_split", "val_split", "val_labels", "val_ratio", "val_fold", "split_seed", "group_by",
    "class_names", "class_order", "max_image_pixels",
)  # fmt: skip
def data_show(
    data_dir: Annotated[Path | None, Argument(metavar="DIR", help="Folder or table, as for --data_dir.")] = None,
    json: JsonOption = None,
    plugin: PluginOption = None,
    *,
    recipe: Recipe,
) -> None:
    """Read every image: classes, sizes, unreadable files, equal images, and validation images that are in training."""
    from vitcli.commands import data

    data.show(recipe.changed(data_dir=data_dir) if data_dir else recipe, json)
