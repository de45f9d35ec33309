"""Finds recipes: by a path, or by the name of a recipe that is shipped with vitcli."""

from itertools import takewhile
from pathlib import Path

from vitcli.catalog import nearest
from vitcli.errors import Problem, RecipeError

_PACKAGE = Path(__file__).parent.parent
#: next to the package in a checkout, inside it when installed
_FOLDERS = (_PACKAGE / "shipped_recipes", _PACKAGE.parent / "recipes")
LIBRARY = next((folder for folder in _FOLDERS if folder.is_dir()), _PACKAGE)


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that is shipped with vitcli."""
    return {path.stem: path for path in sorted(LIBRARY.glob("*.yaml"))}


def find_recipe(source: str | Path) -> Path:
    """The file `source` names: a path, the folder of a run, or the name of a shipped recipe with or without `.yaml`.

    Raises:
        RecipeError: there is no such recipe; the message has the nearest name.
    """
    path = Path(source)
    if path.is_file():
        return path
    if (of_run := path / "recipe.yaml").is_file():
        return of_run
    shipped, name = shipped_recipes(), path.name.removesuffix(".yaml")
    if path.parent == Path() and name in shipped:
        return shipped[name]
    what = "a folder, not a recipe file" if path.is_dir() else "no such recipe file"
    likely = nearest(path.stem, list(shipped))
    help = f"did you mean `{likely}`? " if likely else ""
    raise RecipeError([Problem(what, str(source), help + "`vitcli recipes ls` lists the recipes that are shipped")])


def header(path: Path) -> list[str]:
    """The comment lines at the top of a recipe, without their `#`."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return [line.lstrip("#").strip() for line in lines]
