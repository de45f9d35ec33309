"""Fixtures of the tests that run commands."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.cpp import built


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all test processes."""
    base = tmp_path_factory.getbasetemp()  # of one process; that of all is above it
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def build(shared_folder: Path) -> Callable[..., Path]:
    """Runtime -> the folder of the C++ programs `classify` and `pixels`."""
    return partial(built, shared=shared_folder)
