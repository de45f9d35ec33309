"""The names a recipe may use, read from the tables that declare them without importing these modules (or torch).

A registry is a dict with literal string keys at the top of a module: `VARIANTS` in each file of models/, `OPTIMIZERS`,
`SCHEDULES` and `DATASETS`. Adding a row there is all it takes to make a name known.
"""

import ast
import difflib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent

#: registry -> the files that declare it (relative to the package) and the name of the table
REGISTRIES: dict[str, tuple[str, str]] = {
    "models": ("models/*.py", "VARIANTS"),
    "optimizers": ("optim/optimizers.py", "OPTIMIZERS"),
    "schedules": ("optim/schedule.py", "SCHEDULES"),
    "datasets": ("data/datasets.py", "DATASETS"),
}


@cache
def registered(registry: str) -> tuple[str, ...]:
    """The names of `registry`, in the order of their tables."""
    pattern, table = REGISTRIES[registry]
    return tuple(name for file in sorted(PACKAGE.glob(pattern)) for name in _keys(file, table))


def _keys(file: Path, table: str) -> list[str]:
    """The literal keys of the dict that `file` assigns to `table`."""
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == table for target in targets):
            value = getattr(statement, "value", None)
            assert isinstance(value, ast.Dict), f"{file.name}: {table} must be a dict literal"
            return [ast.literal_eval(key) for key in value.keys if key is not None]
    return []


def nearest(word: object, names: list[str] | tuple[str, ...]) -> str | None:
    """The name that was probably meant by `word`."""
    matches = difflib.get_close_matches(str(word).lower(), [name.lower() for name in names], n=1, cutoff=0.6)
    return next((name for name in names if name.lower() == matches[0]), None) if matches else None
