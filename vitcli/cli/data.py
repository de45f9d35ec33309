"""`vitcli data`."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Context, Option

from vitcli.cli.help import Commands
from vitcli.cli.options import ConfigOption, JsonOption, PluginOption
from vitcli.cli.recipe_keys import PREVIEW_KEYS, command_with_keys, with_keys
from vitcli.recipe.load import Recipe, load_recipe

data_app = Commands(no_args_is_help=True, help="Look at a data set before training, split it, or pack it.")


@data_app.command("show")
@with_keys(
    "dataset", "train_split", "val_split", "val_labels", "val_ratio", "val_fold", "split_seed", "group_by",
    "label_separator", "class_names", "class_order", "max_image_pixels",
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


@data_app.command("split")
@with_keys(
    "dataset", "train_split", "val_ratio", "val_fold", "split_seed", "group_by", "class_names", "max_image_pixels",
)  # fmt: skip
def data_split(
    data_dir: Annotated[Path, Argument(metavar="DIR", help="Class folders, a table or an archive.")],
    out: Annotated[Path, Option("-o", "--output", metavar="DIR", help="The new folder.")],
    test_ratio: Annotated[
        float | None,
        Option("--test_ratio", metavar="NUMBER", help="Also hold this share of all images out as test/.", min=0, max=1),
    ] = None,
    plugin: PluginOption = None,
    *,
    recipe: Recipe,
) -> None:
    """Write images as a new data set with train, val and split.csv: by hard links, or copies on another disk."""
    from vitcli.commands import data_split

    data_split.split(recipe.changed(data_dir=data_dir), out, test_ratio)


@data_app.command("pack")
@with_keys(
    "dataset", "train_split", "val_split", "val_labels", "val_ratio", "val_fold", "split_seed", "group_by",
    "label_separator", "class_names", "class_order", "max_image_pixels", "on_bad_image",
)  # fmt: skip
def data_pack(
    data_dir: Annotated[Path, Argument(metavar="DIR", help="Folder or table, as for --data_dir.")],
    out: Annotated[Path, Option("-o", "--output", metavar="DIR", help="The new folder, for --dataset packed.")],
    store: Annotated[
        Literal["files", "raw"], Option(help="files: each file as it is. raw: pixels, which need no decoding.")
    ] = "files",
    shorter_side: Annotated[
        int | None,
        Option("--shorter_side", metavar="PX", min=8, help="Resize images whose shorter side is longer than this."),
    ] = None,
    quality: Annotated[int, Option(min=1, max=100, help="Of JPEG, for images that are resized.")] = 92,
    plugin: PluginOption = None,
    *,
    recipe: Recipe,
) -> None:
    """Write a data set into one file for each split, with an index: it opens at once and is read faster.

    All images are decoded once. An interrupted packing is continued by the same command.
    """
    from vitcli.commands.pack import pack_splits
    from vitcli.data.pack import Packing

    packing = Packing(store, shorter_side, quality)
    pack_splits(recipe.changed(data_dir=data_dir), out, packing, on_bad_image=recipe.dataset.on_bad_image)


@command_with_keys(data_app, PREVIEW_KEYS, "preview")
def data_preview(
    ctx: Context,
    config: ConfigOption = None,
    out: Annotated[Path, Option("-o", "--output", metavar="FILE", help="The page, .png or .jpg.")] = Path(
        "preview.png"
    ),
    num_images: Annotated[int, Option("--num_images", min=1, metavar="N", help="Images of the first batch.")] = 6,
    num_draws: Annotated[
        int, Option("--num_draws", min=1, metavar="N", help="How often each is augmented, as in the first epochs.")
    ] = 4,
    *,
    recipe_keys: dict[str, str],
) -> None:
    """Draw the first training batch as the network will see it: augmented, mixed, with its labels.

    `vitcli data preview -c fastvit_t8 --data_dir DIR -o preview.png`; each row has the evaluation crop for comparison.
    """
    recipe = load_recipe(config, recipe_keys)
    from vitcli.commands.preview import preview

    preview(recipe, out, num_images=num_images, num_draws=num_draws)
