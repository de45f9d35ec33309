"""Fixtures of the tests that run commands."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.cpp import built


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runtime -> the folder of the C++ programs `classify` and `pixels`."""
    base = tmp_path_factory.getbasetemp()  # of one process; that of all is above it
    return partial(built, shared=base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
