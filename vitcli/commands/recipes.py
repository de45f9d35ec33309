"""`vitcli recipes`: list, show, copy, check and compare recipes, without importing torch."""

from collections.abc import Mapping
from pathlib import Path

from rich.markup import escape

from vitcli.errors import UsageError
from vitcli.log import SafeConsole
from vitcli.recipe.library import find_recipe, header, shipped_recipes
from vitcli.recipe.load import load_recipe
from vitcli.recipe.schema import SECTION_OF, SECTIONS
from vitcli.recipe.write import origin_text, yaml_value

_console = SafeConsole(highlight=False, emoji=False, soft_wrap=True)


def ls() -> None:
    """List the shipped recipes, each with the first line of its header."""
    recipes = shipped_recipes()
    width = max(map(len, recipes))
    for name, path in recipes.items():
        _console.print(f"[bold]{name:<{width}}[/bold]  {escape((header(path) or [''])[0])}")
    _console.print("\nuse one: vitcli train -c NAME --data_dir DIR; copy one to this folder: vitcli recipes cp NAME")


def show(source: str, overrides: Mapping[str, str]) -> None:
    """Print every value of the recipe and its origin, as YAML with a comment on each line."""
    recipe = load_recipe(source, overrides)
    flat = recipe.flat()
    _console.print(escape(f"# {find_recipe(source)}"), style="bold")
    for section, model in SECTIONS.items():
        _console.print(escape(f"\n# {section}"), style="bold")
        for name in model.model_fields:
            origin = origin_text(recipe, name)
            line = f"{f'{name}: {yaml_value(flat[name])}':<52} # {origin}"
            _console.print(escape(line), style="dim" if origin == "default" else "")
    for note in recipe.notes:
        _console.note(note)


def cp(source: str, target: Path | None) -> None:
    """Copy a recipe into the current folder (or to `target`); nothing is overwritten."""
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
    """Load each recipe; errors are raised, notes are printed."""
    for source in sources:
        recipe = load_recipe(source, overrides)
        for note in recipe.notes:
            _console.note(note)
        _console.print(f"{escape(str(source))}: ok, {len(recipe.origins)} of {len(SECTION_OF)} keys set")


def diff(first: str, second: str) -> None:
    """Print the keys in which two recipes differ."""
    one, two = load_recipe(first).flat(), load_recipe(second).flat()
    rows = [("", first, second)]
    rows += [(name, yaml_value(one[name]), yaml_value(two[name])) for name in SECTION_OF if one[name] != two[name]]
    if len(rows) == 1:
        _console.print("the recipes have the same values")
        return
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for row in rows:
        line = f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}"
        _console.print(escape(line), style="" if row[0] else "bold")
