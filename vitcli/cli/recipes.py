"""`vitcli recipes`."""

from pathlib import Path
from typing import Annotated

import typer

from vitcli.cli.options import COLLECT_UNKNOWN, PluginOption, unknown_options

recipes_app = typer.Typer(no_args_is_help=True, help="List, show, copy, check and compare recipes.")
_Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="YAML file, or the name of a shipped recipe.")]


@recipes_app.command("ls")
def recipes_ls() -> None:
    """List the shipped recipes."""
    from vitcli.commands import recipes

    recipes.ls()


@recipes_app.command("show", context_settings=COLLECT_UNKNOWN)
def recipes_show(ctx: typer.Context, recipe: _Recipe, plugin: PluginOption = None) -> None:
    """Print every value of a recipe and its origin; `--key value` changes one."""
    from vitcli.commands import recipes

    recipes.show(recipe, unknown_options(ctx.args))


@recipes_app.command("cp")
def recipes_cp(
    recipe: _Recipe,
    target: Annotated[Path | None, typer.Argument(help="File or folder. [default: the current folder]")] = None,
) -> None:
    """Copy a shipped recipe, to change it."""
    from vitcli.commands import recipes

    recipes.cp(recipe, target)


@recipes_app.command("validate", context_settings=COLLECT_UNKNOWN)
def recipes_validate(
    ctx: typer.Context,
    recipe: Annotated[list[str], typer.Argument(metavar="RECIPE", help="YAML files, or names of shipped recipes.")],
    plugin: PluginOption = None,
) -> None:
    """Check recipes; all mistakes are reported at once, with file, line and column."""
    from vitcli.commands import recipes

    first_option = next((i for i, word in enumerate(recipe) if word.startswith("--")), len(recipe))
    recipes.check(recipe[:first_option], unknown_options([*recipe[first_option:], *ctx.args]))


@recipes_app.command("diff")
def recipes_diff(first: _Recipe, second: _Recipe, plugin: PluginOption = None) -> None:
    """Show the keys in which two recipes differ."""
    from vitcli.commands import recipes

    recipes.diff(first, second)
