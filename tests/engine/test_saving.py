"""Checkpoints that are written in the background: never two at a time, never torn, and no end overtakes them."""

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.engine.test_checkpoint import CALLS
from vitcli.engine import checkpoint, loop
from vitcli.engine.checkpoint import load_tensors
from vitcli.engine.loop import fit
from vitcli.engine.saving import save, settle
from vitcli.engine.signals import StopFlag
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.errors import DiskError, Interrupted
from vitcli.weights.checkpoint_folders import checkpoints, newest_valid, step_of

KEYS = {"ema": True, "ckpt_save_steps": 1, "ckpt_save_policy": None, "epoch_size": 1}


def at_step(training: Training, steps: int) -> Training:
    batches = iter(training.batches(start_step=0))
    for _ in range(steps):
        train_step(training, batches)
    return training


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each checkpoint takes a tenth of a second; the list has how many were being written when one was begun."""
    real, at_work, seen = checkpoint.write, [0], []

    def write(*args, **keys):
        at_work[0] += 1
        seen.append(at_work[0])
        time.sleep(0.1)
        folder = real(*args, **keys)
        at_work[0] -= 1
        return folder

    monkeypatch.setattr(checkpoint, "write", write)
    return seen


def test_steps_during_the_writing_do_not_change_it(make, monkeypatch: pytest.MonkeyPatch):
    """A step is done before the first byte is written."""
    training = at_step(make(**KEYS), 1)
    batches = iter(training.batches(start_step=1))
    expected = {name: value.clone() for name, value in training.task.network.state_dict().items()}
    trained, real = threading.Event(), checkpoint.write

    def write(*args, **keys):
        assert trained.wait(timeout=30)
        return real(*args, **keys)

    monkeypatch.setattr(checkpoint, "write", write)
    save(training)
    train_step(training, batches)
    trained.set()
    settle(training)
    found = load_tensors(training.run_dir / "checkpoints" / "step-00000001", "model")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not all(torch.equal(v, expected[n]) for n, v in training.task.network.state_dict().items())


@pytest.mark.parametrize("keys", [{}, {"keep_checkpoint_max": 1, "ckpt_save_policy": "latest_k"}])
def test_the_same_files_as_without(make, tmp_path: Path, slow: list[int], keys: dict):
    """A save after each step, each slower than a step: every one is written, one at a time, to the last bit."""
    saved = {}
    for ckpt_async in (True, False):
        training = make(**KEYS | keys, ckpt_async=ckpt_async)
        fit(training, StopFlag())
        saved[ckpt_async] = {
            (folder.name, stem): (folder / f"{stem}.safetensors").read_bytes()
            for folder in checkpoints(training.run_dir)
            for stem in ("model", "ema", "optimizer")
        }
        shutil.rmtree(training.run_dir)
    assert saved[True] == saved[False]
    assert len(saved[True]) == (3 if keys else 12)
    assert set(slow) == {1}


def test_an_evaluation_begins_when_everything_is_written(make, monkeypatch: pytest.MonkeyPatch, slow: list[int]):
    training = make(**KEYS)
    real, found = loop._measure, []

    def measure(*args):
        found.append(step_of(checkpoints(training.run_dir)[0]))
        return real(*args)

    monkeypatch.setattr(loop, "_measure", measure)
    fit(training, StopFlag())
    assert found == [4]


@pytest.mark.parametrize("error", [ZeroDivisionError("of the step"), Interrupted("by a signal")])
def test_no_end_overtakes_the_writing(make, monkeypatch: pytest.MonkeyPatch, slow: list[int], error: Exception):
    def fails(training, batches):
        if training.progress.step == 2:
            raise error
        return train_step(training, batches)

    monkeypatch.setattr(loop, "train_step", fails)
    training = make(**KEYS)
    with pytest.raises(type(error)):
        fit(training, StopFlag())
    newest, damaged = newest_valid(training.run_dir)
    assert newest is not None
    assert step_of(newest) == 2
    assert not damaged


@pytest.mark.parametrize("policy", ["stop", "warn"])
def test_an_error_of_the_writer_reaches_the_loop(make, monkeypatch: pytest.MonkeyPatch, capsys, policy: str):
    """`stop` ends the run at the next step; `warn` says it, and the next checkpoint is written."""
    real, next_step = checkpoint.save_file, threading.Event()

    def full(tensors, path):
        if "-00000002-" in str(path):
            assert next_step.wait(timeout=30)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    def until_it_has_failed(training, batches):
        deadline = time.monotonic() + 30
        if training.progress.step == 2:
            next_step.set()
        while training.progress.step == 2 and not training.writer.has_failed:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return train_step(training, batches)

    monkeypatch.setattr(checkpoint, "save_file", full)
    monkeypatch.setattr(loop, "train_step", until_it_has_failed)
    training = make(**KEYS | {"ckpt_save_steps": 2}, on_save_error=policy)
    training.reporter.console.quiet = False
    if policy == "stop":
        with pytest.raises(DiskError, match="the disk is full: checkpoint 2"):
            fit(training, StopFlag())
        assert training.progress.step == 3, "not only at the next save, of step 4"
    else:
        fit(training, StopFlag())
        assert "the disk is full: checkpoint 2" in capsys.readouterr().out
    assert [step_of(folder) for folder in checkpoints(training.run_dir)] == ([] if policy == "stop" else [4])


def test_killed_at_every_system_call_of_the_writer(make):
    """In a forked process that ends at the k-th call: the old checkpoint or the new one, complete."""
    training = at_step(make(**KEYS), 1)
    survived = {1: 0, 2: 0}
    for k in range(1, 200):
        pid = os.fork()
        if pid == 0:
            _save_and_die(training, k)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert ended in (0, 9)
        newest, damaged = newest_valid(training.run_dir)
        assert newest is not None
        assert not damaged
        survived[step_of(newest)] += 1
        shutil.rmtree(training.run_dir / "checkpoints")
        (training.run_dir / "checkpoints").mkdir()
        if ended == 0:
            break
    assert survived[1] > 5
    assert survived[2] >= 2


def _save_and_die(training: Training, stop_at: int) -> None:
    """Save step 1, then step 2 up to the `stop_at`-th call; never returns."""
    code = 1
    try:
        save(training)
        settle(training)
        training.progress.step = 2
        count = [0]
        for name in CALLS:
            real = getattr(os, name)

            def counted(*args, _real=real, **keys):
                count[0] += 1
                if count[0] == stop_at:
                    os._exit(9)
                return _real(*args, **keys)

            setattr(os, name, counted)
        save(training)
        settle(training)
        code = 0
    finally:
        os._exit(code)
