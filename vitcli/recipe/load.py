"""Builds a `Recipe` from a YAML file and the command line, or reports every mistake in them at once.

Precedence: default of the schema < file < command line. The origin of each value is kept.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitcli.catalog import PLUGIN_KINDS, nearest
from vitcli.errors import Place, Problem, RecipeError, shortened
from vitcli.recipe import check, mindcv, schema
from vitcli.recipe.check import COMMAND_LINE, MINDCV_DEFAULT
from vitcli.recipe.describe import accepts, allowed_values, expectation
from vitcli.recipe.flat_yaml import command_line_value, read_flat_yaml
from vitcli.recipe.library import find_recipe

#: a search for the nearest name takes milliseconds
MAX_SUGGESTIONS = 30


@dataclass(frozen=True)
class Recipe:
    """All values of a run, in typed sections: `recipe.optimizer.lr`. Frozen; `changed` makes a new one."""

    name: str
    system: schema.System
    dataset: schema.Dataset
    augmentation: schema.Augmentation
    model: schema.Model
    learning: schema.Learning
    loss: schema.Loss
    evaluation: schema.Evaluation
    scheduler: schema.Scheduler
    optimizer: schema.Optimizer
    checkpoint: schema.Checkpoint
    origins: dict[str, Place | str] = field(default_factory=dict)  #: key -> where it was set; unset keys are missing
    notes: tuple[str, ...] = ()  #: what the user is told before the run starts
    from_mindcv: bool = False  #: whether the file is one of MindCV's

    @property
    def from_file(self) -> bool:
        return any(isinstance(origin, Place) for origin in self.origins.values())

    def flat(self) -> dict[str, Any]:
        """Every key with its value, in plain JSON types."""
        return {k: v for name in schema.SECTIONS for k, v in getattr(self, name).model_dump(mode="json").items()}

    def get(self, name: str) -> Any:
        return getattr(getattr(self, schema.SECTION_OF[name]), name)

    def sets(self, *names: str) -> list[str]:
        """Those of the keys that the user, or the user's file, set to something other than the schema's default."""
        given = [name for name in names if self.origins.get(name, MINDCV_DEFAULT) != MINDCV_DEFAULT]
        return [name for name in given if self.get(name) != schema.default(name)]

    def changed(self, source: str = COMMAND_LINE, /, **values: Any) -> "Recipe":
        """This recipe with other values, which come from `source`.

        Raises:
            RecipeError: a key or a value is not allowed.
        """
        sources = {name: (value, self.origins[name]) for name, value in self.flat().items() if name in self.origins}
        sources |= {name: (value, source) for name, value in values.items()}
        recipe = _build(self.name, sources, [])
        return replace(recipe, notes=self.notes, from_mindcv=self.from_mindcv)


def load_recipe(source: str | Path | None = None, overrides: Mapping[str, Any] | None = None, **values: Any) -> Recipe:
    """The recipe in the file `source` (a path, or the name of a shipped one), changed by `overrides`.

    Args:
        source: YAML file; None: the schema's defaults.
        overrides: key -> text as typed on a command line.
        values: key -> Python value; the same as overrides from Python code.

    Raises:
        RecipeError: with every mistake found, each with its place.
    """
    path = find_recipe(source) if source is not None else None
    entries, problems = read_flat_yaml(path) if path else ([], [])
    given = _Given(problems)
    for entry in entries:
        given.take(entry.key, entry.value, entry.key_place, entry.value_place)
    from_mindcv = any(entry.key in mindcv.TRANSLATIONS for entry in entries)
    typed = {name: _parsed(name, text) for name, text in (overrides or {}).items()} | values
    for name, value in typed.items():
        given.take(name, value, COMMAND_LINE, COMMAND_LINE)
    if from_mindcv:
        for name, value in mindcv.DEFAULTS.items():
            given.sources.setdefault(name, (value, MINDCV_DEFAULT))
    recipe = _build(path.stem if path else "defaults", given.sources, given.problems)
    return replace(recipe, notes=(*given.notes, *check.notes(recipe)), from_mindcv=from_mindcv)


class _Given:
    """The values that were given, by key (a later one replaces an earlier one), and the problems and notes so far."""

    def __init__(self, problems: list[Problem]) -> None:
        self.sources: dict[str, tuple[Any, Place | str]] = {}
        self.problems = problems
        self.notes: list[str] = []
        self.num_unknown = 0

    def take(self, key: str, value: Any, key_place: Place | str, value_place: Place | str) -> None:
        if key in mindcv.TRANSLATIONS:
            translated, said = mindcv.TRANSLATIONS[key](value)
            where = f"{key_place.file}:{key_place.line}: " if isinstance(key_place, Place) else ""
            self.notes.append(f"{where}`{key}` {said}")
        elif key not in schema.SECTION_OF:
            self.num_unknown += 1
            self.problems.append(_unknown(key, key_place, suggest=self.num_unknown <= MAX_SUGGESTIONS))
            return
        else:
            translated = self._own_spelling(key, value)
        self.sources |= {name: (own, value_place) for name, own in translated.items()}

    def _own_spelling(self, key: str, value: Any) -> dict[str, Any]:
        """A value in MindCV's spelling, translated to ours."""
        if key == "re_value" and value == "random":
            return {"re_mode": "pixel"}
        if isinstance(value, str | int | None) and (key, value) in mindcv.VALUES:
            return {key: mindcv.VALUES[key, value]}
        numbers = value if isinstance(value, list) and all(isinstance(x, int | float) for x in value) else []
        if key in ("mean", "std") and any(x > 1 for x in numbers):
            self.notes.append(f"`{key}` is given in units of 0..255 and was divided by 255")
            return {key: [x / 255 for x in numbers]}
        return {key: value}


def _parsed(name: str, text: Any) -> Any:
    """A value from the command line; a key that takes text keeps it as it is."""
    if not isinstance(text, str):
        return text
    if name not in schema.SECTION_OF:
        return None if text.lower() in ("null", "none") else command_line_value(text)
    if text.lower() in ("null", "none") and text not in allowed_values(name):  # unlike `pos_embed: none`
        return None
    takes_list = accepts(name, "array")
    if takes_list and schema.extra(name)["registry"]:
        words = text.strip().removeprefix("[").removesuffix("]").split(",")
        return [word.strip() for word in words if word.strip()]
    if not takes_list and not any(accepts(name, kind) for kind in ("boolean", "integer", "number")):
        return text
    value = command_line_value(text)
    only_list = takes_list and not (accepts(name, "number") or accepts(name, "integer"))
    return [value] if only_list and isinstance(value, int | float) else value


def _unknown(name: str, place: Place | str, *, suggest: bool) -> Problem:
    if name == "plugin":
        message = "a recipe cannot name a plugin: a plugin is a program, and reading a recipe must not run it"
        return Problem(message, place, "give it on the command line: --plugin FILE (in Python: vitcli.use_plugin)")
    likely = nearest(name, [*schema.SECTION_OF, *mindcv.TRANSLATIONS]) if suggest else None
    dashes = "--" if place == COMMAND_LINE else ""
    help = f"did you mean `{dashes}{likely}`?" if likely else "`vitcli train --help_all` lists every key"
    return Problem(f"unknown key `{dashes}{shortened(name)}`", place, help)


def _build(recipe_name: str, sources: dict[str, tuple[Any, Place | str]], problems: list[Problem]) -> Recipe:
    """Typed sections from flat values; raises all `problems` together with those found here."""
    sections: dict[str, Any] = {}
    bad: set[str] = set()
    for section, model in schema.SECTIONS.items():
        given = {name: value for name, (value, _) in sources.items() if schema.SECTION_OF[name] == section}
        wrong = {name for name, value in given.items() if not _fits(name, value)}
        try:
            sections[section] = model(**{name: value for name, value in given.items() if name not in wrong})
        except ValidationError as error:
            wrong |= {str(item["loc"][0]) for item in error.errors()}
            sections[section] = model(**{name: value for name, value in given.items() if name not in wrong})
        bad |= wrong
    problems += [_bad_value(name, *sources[name]) for name in sources if name in bad]
    left = {name: gray for name, gray in schema.GRAY.items() if name not in sources}
    if sections["model"].in_channels != 3 and left:
        sections["augmentation"] = sections["augmentation"].model_copy(update=left)
    recipe = Recipe(recipe_name, **sections, origins={name: origin for name, (_, origin) in sources.items()})
    problems += check.problems(recipe, ignore=bad)
    if problems:
        raise RecipeError(sorted(problems, key=_file_order))
    return recipe


def _fits(name: str, value: Any) -> bool:
    """Whether the value passes what pydantic does not check: true is not a number, and names must be known."""
    if isinstance(value, bool) and not accepts(name, "boolean"):
        return False
    return value is None or not schema.extra(name)["registry"] or not _unknown_names(name, value)


def _unknown_names(name: str, value: Any) -> list[Any]:
    """Those of the value's names, or the value itself, that the key's choice of words does not have."""
    chosen = value if isinstance(value, list | tuple) else [value]
    return [word for word in chosen if word not in allowed_values(name)]


def _bad_value(name: str, value: Any, place: Place | str) -> Problem:
    wrong = next((word for word in _unknown_names(name, value) if isinstance(word, str)), None)
    likely = nearest(wrong, allowed_values(name)) if wrong else None
    shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool | list | None) else value
    where = f"command line, --{name}" if place == COMMAND_LINE else place
    help = f"did you mean `{likely}`?" if likely else None
    if schema.extra(name)["registry"] in PLUGIN_KINDS:
        help = f"{help}\n" if help else ""
        help += "a name from a plugin file needs --plugin FILE"
    return Problem(f"`{name}` must be {expectation(name)}, not {shortened(str(shown))}", where, help)


def _file_order(problem: Problem) -> tuple[int, int]:
    return (problem.place.line, problem.place.column) if isinstance(problem.place, Place) else (10**9, 0)
