"""What single values cannot show: keys that contradict each other (problems) or have no effect (notes).

The rules are written next to the keys they are about, in the sections of `recipe/schema/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitcli.errors import Problem
from vitcli.recipe import schema

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe

#: where a value can come from, other than a place in a file
COMMAND_LINE = "command line"
MINDCV_DEFAULT = "MindCV's default"


def problems(recipe: Recipe, *, ignore: set[str]) -> list[Problem]:
    """Contradictions that stop the run. The keys in `ignore` are known to be wrong, and have their defaults here."""
    if "model" in ignore:  # which keys an unknown model has is not known
        ignore = ignore | set(schema.OWN_KEYS)
    return [
        Problem(message, recipe.origins.get(name, f"`{name}`"), help)
        for section in schema.SECTIONS
        for name, message, help in getattr(recipe, section).problems(recipe)
        if name not in ignore
    ]


def notes(recipe: Recipe) -> list[str]:
    """What is allowed but has no effect, one sentence each."""
    return [sentence for section in schema.SECTIONS for sentence in getattr(recipe, section).notes(recipe)]


def launch(recipe: Recipe, num_processes: int) -> tuple[list[Problem], list[str]]:
    """Problems and notes where `distribute` contradicts the number of processes that torchrun started.

    MindCV's files say False although its README starts eight processes, so in such a file it is only a note.
    """
    said = recipe.system.distribute
    if said == "auto" or said == (num_processes > 1):
        return [], []
    started = f"torchrun started {num_processes} processes" if num_processes > 1 else "only one process was started"
    message = f"`distribute` is {said}, but {started}"
    place = recipe.origins.get("distribute", "`distribute`")
    if recipe.from_mindcv and place != COMMAND_LINE:
        return [], [f"{message}: training with {num_processes} process{'es' if num_processes > 1 else ''}"]
    cure = "start with torchrun --nproc_per_node N" if said else "start without torchrun"
    return [Problem(message, place, f"{cure}, or add --distribute auto")], []
