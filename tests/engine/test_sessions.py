"""The time of a run is that of all its sessions, also of those that were killed."""

import json
from pathlib import Path

import pytest

from tests.support.run_folders import START, lines
from vitcli.engine.sessions import Clock, earlier_sessions


def run_with(folder: Path, sessions: object, metrics: str = "") -> Path:
    (folder / "status.json").write_text(json.dumps({"status": "running", "sessions": sessions}))
    (folder / "metrics.jsonl").write_text(metrics)
    return folder


def test_a_killed_session_lasted_until_the_last_line(tmp_path: Path):
    """The line after the third epoch was written after 190 seconds; the next one was cut."""
    metrics = "".join(json.dumps(line) + "\n" for line in lines((1.0, 2.0, 3.0))) + '{"kind": "train", "time": 17'
    found = earlier_sessions(run_with(tmp_path, [{"start": START, "seconds": 30.5}, {"start": START + 100}], metrics))
    assert found == [{"start": START, "seconds": 30.5}, {"start": START + 100, "seconds": 90.0}]
    clock = Clock(found)
    assert 120.5 <= clock.seconds < 125
    assert [set(session) for session in clock.going_on] == [{"start", "seconds"}, {"start", "seconds"}, {"start"}]
    assert clock.ended[:2] == found
    assert 0 <= clock.ended[2]["seconds"] < 5


def test_a_session_that_wrote_nothing(tmp_path: Path):
    metrics = json.dumps({"kind": "train", "step": 1, "time": START - 50})
    assert earlier_sessions(run_with(tmp_path, [{"start": START}], metrics)) == [{"start": START, "seconds": 0.0}]


@pytest.mark.parametrize("sessions", [None, 3, {"start": 1}, [1, {"seconds": 3}, {"start": "x"}, {"start": True}]])
def test_what_is_no_session(tmp_path: Path, sessions: object):
    assert earlier_sessions(run_with(tmp_path, sessions)) == []


def test_no_status(tmp_path: Path):
    assert earlier_sessions(tmp_path) == []
    (tmp_path / "status.json").write_text("{")
    assert earlier_sessions(tmp_path) == []
