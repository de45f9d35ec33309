"""A checkpoint is whole or absent, whatever instant the process dies at, whatever happens to its files later."""

import errno
import os
from pathlib import Path

import pytest
import torch

from vitcli.engine import checkpoint
from vitcli.engine.checkpoint import Snapshot, clean_up, load_tensors, mark_best, prune, publish, write
from vitcli.errors import DiskError
from vitcli.weights.checkpoint_folders import checkpoints, newest_valid, step_of

CALLS = ("open", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "chmod", "symlink")


class Crash(BaseException):
    """As kill -9: nothing of the program's own clean-up runs."""


def save(run: Path, step: int, value: float) -> Path:
    tensors = {"model": {"w": torch.full((64,), value)}, "optimizer": {"m": torch.full((64,), -value)}}
    snapshot = Snapshot(step, tensors, {"progress": {"step": step}})
    return publish(run, snapshot, write(run, snapshot))


def count_calls(monkeypatch: pytest.MonkeyPatch, stop_at: int) -> list[str]:
    """Let the `stop_at`-th call of a file-system function crash before it is done; returns the log of calls."""
    log: list[str] = []
    for name in CALLS:
        real = getattr(os, name)

        def counted(*args, _name=name, _real=real, **keys):
            log.append(_name)
            if len(log) == stop_at:
                raise Crash
            return _real(*args, **keys)

        monkeypatch.setattr(os, name, counted)
    return log


@pytest.mark.parametrize("again", [False, True], ids=["next_step", "same_step"])
def test_crash_at_every_system_call(tmp_path: Path, again: bool):
    """Before the k-th call, for every k: the newest valid checkpoint is the old one or the new one, complete."""
    survived = {1.0: 0, 2.0: 0}
    for k in range(1, 200):
        run = tmp_path / str(k)
        run.mkdir()
        save(run, 10, 1.0)
        with pytest.MonkeyPatch.context() as patch:
            log = count_calls(patch, stop_at=k)
            try:
                save(run, 10 if again else 11, 2.0)
            except Crash:
                crashed = True
            else:
                crashed = False
        folder, damaged = newest_valid(run)
        assert folder is not None
        assert not damaged
        found = load_tensors(folder, "model")["w"][0].item()
        assert torch.equal(load_tensors(folder, "optimizer")["m"], torch.full((64,), -found))
        survived[found] += 1
        clean_up(run)
        assert newest_valid(run)[0] is not None
        assert all(path.name.startswith("step-") for path in (run / "checkpoints").iterdir())
        if not crashed:
            assert len(log) < k
            break
    assert survived[1.0] > 5
    assert survived[2.0] >= 1


@pytest.mark.parametrize("damage", ["truncate", "empty", "flip", "zero", "delete", "no_manifest", "extra_state"])
def test_damage_is_found_and_the_one_before_is_used(tmp_path: Path, damage: str):
    save(tmp_path, 1, 1.0)
    folder = save(tmp_path, 2, 2.0)
    file = folder / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(content[:-10])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "flip":
        content[-5] ^= 4
        file.write_bytes(content)
    elif damage == "zero":
        file.write_bytes(content[:-100] + bytes(100))
    elif damage == "delete":
        file.unlink()
    elif damage == "no_manifest":
        (folder / "MANIFEST.json").unlink()
    else:
        (folder / "state.json").write_text("{}")
    newest, damaged = newest_valid(tmp_path)
    assert newest is not None
    assert newest.name == "step-00000001"
    assert len(damaged) == 1
    assert "step-00000002 is damaged" in damaged[0]


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, 1, 1.0)

    def full(*args, **keys):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DiskError, match="the disk is full: checkpoint 2 needs"):
        save(tmp_path, 2, 2.0)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


@pytest.mark.parametrize(("policy", "kept"), [("latest_k", {2, 4, 5}), ("top_k", {2, 3, 5}), (None, {1, 2, 3, 4, 5})])
def test_what_is_kept(tmp_path: Path, policy: str | None, kept: set[int]):
    """K = 2, the best (2) and the newest (5) always."""
    primary = {1: 10.0, 2: 90.0, 3: 80.0, 4: 20.0, 5: 30.0}
    for step in primary:
        folder = save(tmp_path, step, float(step))
        if step == 2:
            mark_best(folder)
        prune(tmp_path, policy=policy, keep=2, primary=primary)
    assert {step_of(folder) for folder in checkpoints(tmp_path)} == kept
    assert (tmp_path / "checkpoints" / "best").resolve().name == "step-00000002"
