"""How long a run has been trained, over all the times that it was started and continued.

Kept in status.json, because a checkpoint holds nothing that a second run of the same recipe would not have too:

    "sessions": [{"start": seconds since 1970, "seconds": 812.5}, {"start": …}]

A session without `seconds` is going on, or its process was killed.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitcli.errors import DataError
from vitcli.weights.json_file import read_json

Session = dict[str, float]

#: more than two lines of metrics.jsonl, however many numbers a task logs
_TAIL_BYTES = 2**16


class Clock:
    """The sessions of a run; the present one begins here."""

    def __init__(self, earlier: list[Session]) -> None:
        self.earlier = earlier
        self.start, self._begun = round(time.time(), 3), time.perf_counter()

    @property
    def seconds(self) -> float:
        """Of training up to now, over all sessions."""
        return sum(session["seconds"] for session in self.earlier) + time.perf_counter() - self._begun

    @property
    def going_on(self) -> list[Session]:
        """For status.json while the run is going on."""
        return [*self.earlier, {"start": self.start}]

    @property
    def ended(self) -> list[Session]:
        """For status.json at the end."""
        return [*self.earlier, {"start": self.start, "seconds": round(time.perf_counter() - self._begun, 3)}]


def earlier_sessions(run_dir: Path) -> list[Session]:
    """Those of status.json, each with its seconds; call it before the resumed run removes lines of metrics.jsonl."""
    try:
        status = read_json(run_dir / "status.json")
    except DataError:  # a new run, or a damaged file, which is written again
        return []
    end = last_written(run_dir / "metrics.jsonl")
    return [session | {"seconds": round(seconds_of(session, end), 3)} for session in sessions_in(status)]


def sessions_in(status: dict[str, Any]) -> list[Session]:
    """What status.json lists; what is not a session is left out."""
    listed = status.get("sessions")
    return [one for one in listed if _is_session(one)] if isinstance(listed, list) else []


def seconds_of(session: Session, end: float) -> float:
    """How long it was; a killed one until `end`, when the run last wrote something."""
    return session.get("seconds", max(0.0, end - session["start"]))


def last_written(metrics_file: Path) -> float:
    """The time in the last whole line of metrics.jsonl, in seconds since 1970; 0 without one."""
    with suppress(OSError), metrics_file.open("rb") as file:
        file.seek(max(0, metrics_file.stat().st_size - _TAIL_BYTES))
        return next(_times(file.read().split(b"\n")[::-1]), 0.0)
    return 0.0


def _times(lines: list[bytes]) -> Iterator[float]:
    for line in lines:
        with suppress(ValueError, RecursionError, TypeError, KeyError):
            if _is_time(found := json.loads(line)["time"]):
                yield found


def _is_session(value: Any) -> bool:
    return isinstance(value, dict) and _is_time(value.get("start")) and _is_time(value.get("seconds", 0))


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
