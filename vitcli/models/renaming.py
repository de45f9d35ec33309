"""Converts parameter names with a table of (theirs, ours), in both directions.

A row is a module, "encoder.layer.{i}.mlp" for each number i, and covers its weight and bias; or it is a full name.
"""

import re
from collections.abc import Callable
from functools import cache

Table = tuple[tuple[str, str], ...]


def to_theirs(table: Table) -> Callable[[str], str | None]:
    """A function from our name to theirs; the first of several rows for one of ours counts."""
    return to_ours(tuple((ours, theirs) for theirs, ours in table))


@cache
def to_ours(table: Table) -> Callable[[str], str | None]:
    """A function from their name to ours; None for a name that is not in the table."""
    rules: list[tuple[re.Pattern[str], str]] = []
    for theirs, ours in table:
        pattern = re.escape(theirs).replace(r"\{i\}", r"(\d+)")
        rules.append((re.compile(pattern + r"(\.weight|\.bias)?"), ours))

    def rename(name: str) -> str | None:
        for pattern, ours in rules:
            if match := pattern.fullmatch(name):
                *numbers, ending = match.groups(default="")
                return ours.format(i=numbers[0] if numbers else "") + ending
        return None

    return rename
