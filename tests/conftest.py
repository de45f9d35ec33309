"""Fixtures of all tests: commands as a user runs them, small folders of images."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import commands
from tests.support.images import image_folder, make_image_folder

__all__ = ["image_folder", "make_image_folder"]

#: folders whose files take longest
LONG = tuple(Path(__file__).with_name(folder) for folder in ("deploy", "e2e", "commands"))

# A shell starts background jobs with SIGINT ignored, and nohup ignores SIGHUP: commands under test would do so, too.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker of several still has one when the others are done."""
    items.sort(key=lambda item: not any(item.path.is_relative_to(folder) for folder in LONG))


@pytest.fixture
def vitcli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `vitcli …` in an empty directory."""

    def run(*words: object, timeout: float = 120, **env: str) -> subprocess.CompletedProcess:
        return commands.finished(commands.python_m("vitcli", *words), cwd=tmp_path, timeout=timeout, **env)

    return run


@pytest.fixture
def torchrun(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `torchrun --nproc_per_node N -m MODULE …` in an empty directory."""

    def run(num_processes: int, module: str, *words: object, timeout: float = 180) -> subprocess.CompletedProcess:
        return commands.finished(commands.torchrun(num_processes, module, *words), cwd=tmp_path, timeout=timeout)

    return run
