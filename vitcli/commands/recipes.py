"""`vitcli recipes`: list, show, copy, check and compare recipes, without importing torch."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vitcli.errors import UsageError
from vitcli.recipe.describe import help_of
from vitcli.recipe.library import find_recipe, header, shipped_recipes
from vitcli.recipe.load import load_recipe
from vitcli.recipe.schema import SECTION_OF, SECTIONS
from vitcli.recipe.write import origin_text, yaml_value

_console = Console(highlight=False, soft_wrap=True)


def ls() -> None:
    """The shipped recipes, each with the first line of its header."""
    table = Table("recipe", "what it is")
    for name, path in shipped_recipes().items():
        table.add_row(escape(name), escape((header(path) or [""])[0]))
    _console.print(table)
    _console.print("vitcli recipes cp NAME copies one here; vitcli train -c NAME uses it as it is")


def show(source: str, overrides: Mapping[str, str]) -> None:
    """Every value of the recipe and where it comes from."""
    recipe = load_recipe(source, overrides)
    flat = recipe.flat()
    for section, model in SECTIONS.items():
        table = Table("key", "value", "from", title=section, title_justify="left", title_style="bold", expand=False)
        for name in model.model_fields:
            origin = origin_text(recipe, name)
            style = "dim" if origin == "default" else ""
            table.add_row(name, escape(yaml_value(flat[name])), escape(origin), style=style)
        _console.print(table)
    for note in recipe.notes:
        _console.print(f"[yellow]note:[/yellow] {escape(note)}")


def cp(source: str, target: Path | None) -> None:
    """Copy a recipe into the present folder (or to `target`); nothing is overwritten."""
    path = find_recipe(source)
    target = target / path.name if target and target.is_dir() else target or Path(path.name)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(path.read_text(encoding="utf-8"))
    except FileExistsError:
        raise UsageError(f"{target} exists", help="give another name: vitcli recipes cp NAME FILE") from None
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from None
    _console.print(f"wrote {escape(str(target))}; train with: vitcli train -c {escape(str(target))} --data_dir DIR")


def check(sources: list[str], overrides: Mapping[str, str]) -> None:
    """Load each recipe; mistakes are raised, notes are printed."""
    for source in sources:
        recipe = load_recipe(source, overrides)
        for note in recipe.notes:
            _console.print(f"[yellow]note:[/yellow] {escape(note)}")
        _console.print(f"{escape(str(source))}: ok, {len(recipe.origins)} of {len(SECTION_OF)} keys set")


def diff(first: str, second: str) -> None:
    """The keys in which two recipes differ."""
    one, two = load_recipe(first).flat(), load_recipe(second).flat()
    table = Table("key", escape(first), escape(second), "meaning")
    for name in SECTION_OF:
        if one[name] != two[name]:
            table.add_row(name, escape(yaml_value(one[name])), escape(yaml_value(two[name])), escape(help_of(name)))
    _console.print(table if table.row_count else "the two recipes say the same")
