"""What state.json must hold for a run to be continued; the training reads it without asking again."""

from typing import Any

from vitcli.weights.checkpoint_folders import FORMAT

_NUMBER = int | float
_STEPS = {"step": int, "closed_step": int, "best_step": int | None}
_STATE = {"progress": dict, "global_batch": int, "scaler": dict, "recipe": dict}
_PROGRESS = {
    1: _STEPS | {"best_top1": _NUMBER | None, "top1": dict},
    2: _STEPS | {"best": _NUMBER | None, "primary": dict},
}
_METER = {"sums": dict, "steps": int, "dropped_in_a_row": _NUMBER}
#: dicts whose values are numbers
_OF_NUMBERS = ("sums", "primary", "top1")


def missing_in(state: dict[str, Any]) -> str | None:
    """The first thing that is missing in `state`, or of another type; None: it is complete."""
    number = state.get("format", 1)
    parts = {"": (state, _STATE), "progress.": (state.get("progress"), _PROGRESS.get(number, {}))}
    if number == FORMAT:
        parts["meter."] = state.get("meter"), _METER
    for where, (values, needed) in parts.items():
        for name, kinds in needed.items():
            value = values.get(name, ...) if isinstance(values, dict) else ...
            if isinstance(value, bool) or not isinstance(value, kinds):
                return where + name
            if isinstance(value, dict) and name in _OF_NUMBERS and not _holds_numbers(value, name):
                return where + name
    return None


def _holds_numbers(values: dict[str, Any], name: str) -> bool:
    """Whether all values are numbers, and all keys steps, except in sums."""
    return all(isinstance(one, _NUMBER) for one in values.values()) and (
        name == "sums" or all(map(str.isdecimal, values))
    )
