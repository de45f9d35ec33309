"""Writes a recipe: as a YAML file that repeats the run, and line by line for `recipes show`."""

import json
from pathlib import Path
from typing import Any

from vitcli.errors import Place
from vitcli.recipe.load import Recipe
from vitcli.recipe.schema import SECTIONS


def recipe_text(recipe: Recipe, *, portable: bool = False) -> str:
    """A YAML file with every value, grouped by section.

    portable: without absolute paths, which mean nothing on another machine and may tell names.
    """
    lines = [f"# {recipe.name}: every value of the run; `vitcli train -c FILE` with this file repeats it"]
    flat = recipe.flat() | {"run_dir": None, "resume": None, "dry_run": False}  # a repetition is a new run
    if portable:
        flat = {name: None if _is_absolute(value) else value for name, value in flat.items()}
    for section, model in SECTIONS.items():
        lines += ["", f"# {section}"]
        lines += [f"{name}: {yaml_value(flat[name])}" for name in model.model_fields]
    return "\n".join(lines) + "\n"


def _is_absolute(value: Any) -> bool:
    return isinstance(value, str) and Path(value).is_absolute()


def yaml_value(value: Any) -> str:
    """One value as YAML: JSON is YAML, and quotes all text. What YAML does not take as it is, is an escape sequence."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() or c > "\uffff" else f"\\u{ord(c):04x}" for c in text)


def origin_text(recipe: Recipe, name: str) -> str:
    """Where the value of the key came from: default, the file's name and line, command line."""
    origin = recipe.origins.get(name, "default")
    return f"{Path(origin.file).name}:{origin.line}" if isinstance(origin, Place) else origin
