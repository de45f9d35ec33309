"""Which rank failed is decided by evidence, never by what an error's text says."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from vitcli.distributed import World, mark_alive
from vitcli.engine import failures
from vitcli.engine.failures import failure_of_another, failures_in_words
from vitcli.engine.run_dir import leave_word
from vitcli.engine.training import Progress
from vitcli.errors import DataError, LostContact, VitcliError

FRIGHTENING = RuntimeError("[gloo/transport/tcp/pair.cc:1] NCCL: Connection reset by peer, timed out")


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch):
    """A living process that plays rank 1."""
    monkeypatch.setattr(failures, "_GRACE_SECONDS", 0.3)
    mark_alive()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def world(process: subprocess.Popen) -> World:
    processes = tuple((platform.node(), pid) for pid in (os.getpid(), process.pid))
    return World(0, 2, 0, 2, torch.device("cpu"), processes)


def test_an_error_of_this_rank_stays_its_own(tmp_path: Path, others: subprocess.Popen):
    assert failure_of_another(FRIGHTENING, tmp_path, world(others)) is None
    with pytest.raises(RuntimeError, match="gloo"), failures_in_words(tmp_path, world(others), 8, Progress()):
        raise FRIGHTENING
    alone = World(0, 1, 0, 1, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="gloo"), failures_in_words(tmp_path, alone, 8, Progress()):
        raise FRIGHTENING


def test_a_process_that_is_gone(tmp_path: Path, others: subprocess.Popen):
    others.kill()  # a zombie, because it has not been waited for
    found = failure_of_another(RuntimeError("anything"), tmp_path, world(others))
    assert isinstance(found, LostContact)
    assert "rank 1 of the run died" in found.message


def test_what_another_rank_wrote(tmp_path: Path, others: subprocess.Popen):
    leave_word(tmp_path, 0, DataError("this rank's own"))
    leave_word(tmp_path, 1, DataError("cannot read x.png"))
    found = failure_of_another(RuntimeError("anything"), tmp_path, world(others))
    assert found is not None
    assert found.message == "rank 1: cannot read x.png"
    assert found.exit_code == 3
    leave_word(tmp_path, 1, ZeroDivisionError("division by zero"))
    found = failure_of_another(RuntimeError("anything"), tmp_path, world(others))
    assert found is not None
    assert found.message == "rank 1: ZeroDivisionError: division by zero"
    assert found.exit_code == 1, "restarting would not help"


def test_a_broken_connection_and_a_hanging_rank(tmp_path: Path, others: subprocess.Popen, monkeypatch):
    broken = dist.DistNetworkError("anything")
    assert isinstance(failure_of_another(broken, tmp_path, world(others)), LostContact)
    monkeypatch.setattr(failures, "seconds_since_alive", lambda: 601.0)
    found = failure_of_another(RuntimeError("anything"), tmp_path, world(others))
    assert isinstance(found, LostContact)
    assert "did not answer within 600 seconds" in found.message


def test_a_gpu_that_failed(tmp_path: Path):
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be")
    alone = World(0, 1, 0, 1, torch.device("cpu"))

    def trains() -> None:
        (tmp_path / "checkpoints/step-00000007").mkdir(parents=True)
        raise error

    with pytest.raises(VitcliError) as caught, failures_in_words(tmp_path, alone, 8, Progress()):
        trains()
    assert caught.value.message == "the GPU failed: CUDA error: an illegal memory access was encountered"
    assert "step 7 is saved; continue with: vitcli train --resume" in str(caught.value.help)
    assert "--fast_kernels False" in str(caught.value.help)


def test_a_gpu_that_failed_because_another_rank_died(tmp_path: Path, others: subprocess.Popen):
    others.kill()
    with pytest.raises(LostContact), failures_in_words(tmp_path, world(others), 8, Progress()):
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")
