"""Text that a program in any language can read: lines of key=value, and a checksum of them as the last one.

The grammar is that of artifact.txt in deploy/cpp/README.md.
"""

import hashlib
from collections.abc import Mapping

LAST = "checksum="
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_MEANINGS = {escaped[1]: character for character, escaped in _ESCAPES.items()}


def to_text(values: Mapping[str, object]) -> str:
    """The lines of `values`, in their order, and the checksum."""
    escapes = str.maketrans(_ESCAPES)
    lines = "".join(f"{key}={str(value).translate(escapes)}\n" for key, value in values.items())
    return f"{lines}{LAST}{hashlib.sha256(lines.encode()).hexdigest()}\n"


def from_text(text: str) -> dict[str, str]:
    """The values by their keys; ValueError for a text that `to_text` did not write."""
    start = text.rfind(LAST)
    lines = text[: max(start, 0)]
    if start < 0 or text[start:] != f"{LAST}{hashlib.sha256(lines.encode()).hexdigest()}\n":
        raise ValueError("it has no checksum, or another one")
    values: dict[str, str] = {}
    for line in lines.split("\n")[:-1]:
        key, equals, value = line.partition("=")
        if not (key and equals) or key in values:
            raise ValueError(f"the line {line[:40]!r} is not key=value, or its key occurs twice")
        values[key] = _unescaped(value)
    return values


def _unescaped(value: str) -> str:
    parts = iter(value)
    try:
        return "".join(_MEANINGS[next(parts)] if part == "\\" else part for part in parts)
    except (KeyError, StopIteration, RuntimeError):
        raise ValueError("a value has an unknown escape") from None
