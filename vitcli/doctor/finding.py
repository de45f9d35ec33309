"""One thing that was looked at, and what came of it."""

from dataclasses import dataclass
from typing import Literal

#: ok: as it should be; note: works, but may be slow or surprising; problem: something will fail; absent: an extra
Level = Literal["ok", "note", "problem", "absent"]


@dataclass(frozen=True)
class Finding:
    """`text` says what is, `help` what to do about it."""

    level: Level
    text: str
    help: str | None = None
