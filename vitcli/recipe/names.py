"""The names a recipe may use, read from the tables that declare them without importing these modules (or torch).

A registry is a dict with literal string keys at the top of a module: `VARIANTS` in each file of models/, `TRANSFORMERS`
and others. Adding a row there is all it takes to make a name known. Plugins have tables of the same names.
"""

import difflib
from functools import cache
from pathlib import Path

from vitcli.errors import UsageError
from vitcli.recipe.plugins import TABLES, plugin_files
from vitcli.recipe.tables import keyword_arguments, table_names

PACKAGE = Path(__file__).parent.parent

#: registry -> the files that declare it (relative to the package) and the name of the table
REGISTRIES: dict[str, tuple[str, str]] = {
    "models": ("models/*.py", "VARIANTS"),
    "transformers": ("models/transformers.py", "TRANSFORMERS"),
    "optimizers": ("optim/optimizers.py", "OPTIMIZERS"),
    "schedules": ("optim/schedule.py", "SCHEDULES"),
    "datasets": ("catalog.py", "SOURCES"),
    "tasks": ("catalog.py", "TASKS"),
}


def registered(registry: str) -> tuple[str, ...]:
    """The names of `registry`, in the order of their tables."""
    return tuple(files_of(registry))


def files_of(registry: str) -> dict[str, Path]:
    """{name: the file that declares it}, ours and the plugins'.

    Raises:
        UsageError: a plugin takes a name that another file has.
    """
    found = dict(_ours(registry))
    for file in plugin_files() if registry in TABLES else ():
        for name, line in table_names(file, TABLES[registry]).items():
            if name in found:
                raise UsageError(f"{file}:{line}: the name {name!r} is taken by {found[name]}", help="rename it")
            found[name] = file
    return found


@cache
def _ours(registry: str) -> dict[str, Path]:
    pattern, table = REGISTRIES[registry]
    found: dict[str, Path] = {}
    for file in sorted(PACKAGE.glob(pattern)):
        names = table_names(file, table)
        assert not found.keys() & names.keys(), f"{file} declares a name of another file"
        found |= dict.fromkeys(names, file)
    return found


def model_options(model: str) -> tuple[str, ...]:
    """Names of the arguments that the registered `model` takes: those of `create` in the file that declares it."""
    return keyword_arguments(files_of("models")[model], "create")


def nearest(word: object, names: list[str] | tuple[str, ...]) -> str | None:
    """The name that was probably meant by `word`."""
    matches = difflib.get_close_matches(str(word).lower(), [name.lower() for name in names], n=1, cutoff=0.6)
    return next((name for name in names if name.lower() == matches[0]), None) if matches else None
