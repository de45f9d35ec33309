"""`vitcli recipes`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Context

from vitcli.cli.help import Commands
from vitcli.cli.options import COLLECT_UNKNOWN, PluginOption, unknown_options
from vitcli.commands import recipes

recipes_app = Commands(no_args_is_help=True, help="List, show, copy, check and compare recipes.")
_Recipe = Annotated[str, Argument(metavar="RECIPE", help="YAML file, name of a shipped recipe, or folder of a run.")]


@recipes_app.command("ls")
def recipes_ls() -> None:
    """List the shipped recipes."""
    recipes.ls()


@recipes_app.command("show", context_settings=COLLECT_UNKNOWN)
def recipes_show(ctx: Context, recipe: _Recipe, plugin: PluginOption = None) -> None:
    """Print every value of a recipe and its origin; `--key value` changes one."""
    recipes.show(recipe, unknown_options(ctx.args))


@recipes_app.command("cp")
def recipes_cp(
    recipe: _Recipe,
    target: Annotated[Path | None, Argument(help="File or folder. [default: the current folder]")] = None,
) -> None:
    """Copy a shipped recipe, to change it."""
    recipes.cp(recipe, target)


@recipes_app.command("validate", context_settings=COLLECT_UNKNOWN)
def recipes_validate(
    ctx: Context,
    recipe: Annotated[list[str], Argument(metavar="RECIPE", help="YAML files, or names of shipped recipes.")],
    plugin: PluginOption = None,
) -> None:
    """Check recipes; all mistakes are reported at once, with file, line and column."""
    first_option = next((i for i, word in enumerate(recipe) if word.startswith("--")), len(recipe))
    recipes.check(recipe[:first_option], unknown_options([*recipe[first_option:], *ctx.args]))


@recipes_app.command("diff")
def recipes_diff(first: _Recipe, second: _Recipe, plugin: PluginOption = None) -> None:
    """Show the keys in which two recipes differ."""
    recipes.diff(first, second)
