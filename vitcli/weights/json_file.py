"""Reads JSON that others may have written or damaged: an object of plain values, or a DataError with the reason.

Every JSON file next to weights (manifest, state, configurations, artifact.json) is read here. The standard library is
not strict enough: deep nesting ends in a RecursionError, the first of two equal keys is lost, NaN and Infinity are
accepted, and a number may have thousands of digits.
"""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from vitcli.errors import DataError

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64  #: of objects and lists inside each other
MAX_INTEGER = 2**64 - 1
TOO_DEEP = f"objects and lists are nested more than {MAX_DEPTH} deep"


def read_json(path: Path, *, help: str = "copy or download it again") -> dict[str, Any]:
    """The object in the file `path`; DataError with `help` if it is larger than 16 MiB or `parse_json` refuses it."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES // 2**20} MiB")
        return parse_json(content)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read ({reason})", help=help) from None


def parse_json(text: bytes | str) -> dict[str, Any]:
    """The object in `text` (bytes: UTF-8). ValueError for anything else, and for what exceeds the limits above."""
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    hooks: dict[str, Any] = {"parse_int": _integer, "parse_float": _float, "parse_constant": _constant}
    try:
        value = json.loads(text, object_pairs_hook=_object, **hooks)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    _check_depth(value)
    return value


def _check_depth(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        children = (item.values() if isinstance(item, dict) else item for item in level)
        level = [child for group in children for child in group if isinstance(child, dict | list)]
    if level:
        raise ValueError(TOO_DEEP)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {name[:40]!r} occurs more than once")
    return content


def _integer(digits: str) -> int:
    if len(digits) > 21 or abs(int(digits)) > MAX_INTEGER:
        raise ValueError(f"the number {digits[:24]} is too large")
    return int(digits)


def _float(digits: str) -> float:
    if not math.isfinite(float(digits)):
        raise ValueError(f"the number {digits[:24]} is too large")
    return float(digits)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
