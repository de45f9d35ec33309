"""Reads recipe.yaml of a run as plain values; names that only a plugin knows are values too."""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcli.recipe.flat_yaml import MAX_BYTES, read_flat_yaml

_HEADER = re.compile(r"# (.+): every value of the run")
_LINE = re.compile(r"(\w+): (.+)")


@dataclass(frozen=True)
class RecipeFile:
    """The name of the recipe that it was written for, if the first line says it, and key -> value."""

    name: str | None
    values: dict[str, Any]


def read_recipe_file(path: Path) -> RecipeFile:
    """What recipe/write.py wrote, in a millisecond; what somebody has changed since then, as any recipe.

    Raises:
        RecipeError: it is not a recipe. OSError: it cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(MAX_BYTES)
    header = _HEADER.match(text)
    name = header[1] if header else None
    with suppress(ValueError, RecursionError):
        return RecipeFile(name, _values(text))
    entries, _ = read_flat_yaml(path)
    return RecipeFile(name, {entry.key: entry.value for entry in entries})


def _values(text: str) -> dict[str, Any]:
    """Lines `key: JSON`. ValueError: other lines, or a key that is given twice."""
    found = [_LINE.fullmatch(line) for line in text.splitlines() if line and not line.startswith("#")]
    if not all(found):
        raise ValueError("not as it was written")
    values = {line[1]: json.loads(line[2]) for line in found if line}
    if len(values) < len(found):
        raise ValueError("a key is given twice")
    return values
