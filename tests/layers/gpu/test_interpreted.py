"""Runs the tests of the Triton kernels in a process of their own, where they are interpreted on the CPU.

TRITON_INTERPRET must be set before Triton is imported, and holds for the whole process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT

FILES = sorted(path.name for path in Path(__file__).parent.glob("interpreted_*.py"))

pytest.importorskip("triton")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", FILES)
def test_in_the_interpreter(file: str, tmp_path: Path):
    assert_passes(file, "not soak", tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("file", FILES)
def test_at_length_in_the_interpreter(file: str, tmp_path: Path):
    assert_passes(file, "soak", tmp_path)


def assert_passes(file: str, marked: str, tmp_path: Path) -> None:
    path = Path(__file__).with_name(file)
    options = ["-q", "-p", "no:cacheprovider", "-p", "tests.layers.gpu.interpreter", f"--basetemp={tmp_path / 'inner'}"]
    command = [sys.executable, "-m", "pytest", *options, "--timeout=0", "-m", marked, str(path)]
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
