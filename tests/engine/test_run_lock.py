"""The lock of a run's folder holds until its process lets go, whatever this process asks meanwhile."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import environment
from vitcli.engine import run_dir
from vitcli.engine.run_lock import lock, unlock, user_of

ASK = """
import sys; from pathlib import Path; from vitcli.engine.run_lock import user_of
print(user_of(Path(sys.argv[1])))
"""


def user_elsewhere(folder: Path) -> str:
    """What another process finds."""
    command = [sys.executable, "-c", ASK, str(folder)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "recipe.yaml").touch()
    lock(tmp_path)
    yield tmp_path
    unlock()


def test_it_outlives_every_question_of_its_own_process(locked: Path):
    """POSIX takes a lock away as soon as its process closes any descriptor of the file."""
    run_dir.check_there(locked)  # before every checkpoint
    assert user_of(locked)
    assert user_elsewhere(locked) == user_of(locked)
    unlock()
    assert user_elsewhere(locked) == "None"
    assert user_of(locked) is None


def test_nobody_uses_what_has_no_lock(tmp_path: Path):
    assert user_of(tmp_path) is None
    assert user_of(tmp_path / "missing") is None
    (tmp_path / ".lock").symlink_to("/dev/zero")
    assert user_of(tmp_path) is None
