"""`vitcli runs`."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from vitcli.cli.help import Commands
from vitcli.cli.options import JsonOption, PluginOption

runs_app = Commands(no_args_is_help=True, help="List, show, compare and remove runs.")
_RUN = "Folder of a run, or its name in runs/."


@runs_app.command("ls")
def runs_ls(
    folder: Annotated[
        Path | None, Argument(metavar="[DIR]", help="Folder that holds runs. [default: runs]", show_default=False)
    ] = None,
    sort: Annotated[
        Literal["age", "name", "best", "time", "size"],
        Option(help="Order: the newest first, names from A to Z, or the largest first."),
    ] = "age",
    reverse: Annotated[bool, Option("--reverse", help="The other way round.")] = False,
    json: JsonOption = None,
) -> None:
    """List runs: status, epochs, best and last result, time, size, age.

    Columns that do not fit the terminal are left out; a file or a pipe gets all of them.
    """
    from vitcli.commands import runs

    runs.ls(folder, sort, reverse=reverse, json_file=json)


@runs_app.command("show")
def runs_show(
    run: Annotated[str, Argument(metavar="RUN", help=_RUN)], plugin: PluginOption = None, json: JsonOption = None
) -> None:
    """Describe one run: recipe, data, results, checkpoints, and the commands that come next."""
    from vitcli.commands import runs_show

    runs_show.show(run, json_file=json)


@runs_app.command("compare")
def runs_compare(
    run: Annotated[list[str], Argument(metavar="RUN", help="Folders of runs, or their names in runs/.")],
    json: JsonOption = None,
) -> None:
    """Compare runs: the keys in which they differ, and their results.

    Runs that differ only in `seed` are one row: mean ± standard deviation.
    """
    from vitcli.commands import runs_compare

    runs_compare.compare(run, json_file=json)


@runs_app.command("rm")
def runs_rm(
    run: Annotated[list[str], Argument(metavar="RUN", help="Folders of runs, or their names in runs/.")],
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove runs with all their checkpoints, after asking. A run that is in use stays."""
    from vitcli.commands import runs

    runs.rm(run, yes=yes)
