"""`vitcli report`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vitcli.cli.help import Commands
from vitcli.cli.options import PluginOption
from vitcli.cli.recipe_keys import with_keys
from vitcli.recipe.load import Recipe

report_app = Commands()


@report_app.command()
@with_keys("data_dir", "val_batch_size", "num_parallel_workers", "max_image_pixels", "use_ema", "device")
def report(
    runs: Annotated[list[Path], Argument(metavar="RUN …", help="Folders of runs; several are compared.")],
    out: Annotated[Path, Option("-o", "--output", metavar="FILE", help="The page.")] = Path("report.html"),
    num_images: Annotated[
        int | None,
        Option("--num_images", min=1, metavar="N", help="Validation images to evaluate, evenly spread. [default: all]"),
    ] = None,
    plugin: PluginOption = None,
    *,
    recipe: Recipe,
) -> None:
    """Write one HTML page that says what a run is worth: result, curves, classes, mistakes, calibration, recipe.

    `vitcli report runs/… -o report.html`; with several runs: what differs, and whether the difference is chance.
    The page needs no network and no script.
    """
    from vitcli.commands.report import report as run

    run(runs, out, recipe=recipe, num_images=num_images)
