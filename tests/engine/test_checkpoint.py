"""A checkpoint is whole or absent, whatever instant the process dies at, whatever happens to its files later."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitcli import disk
from vitcli.engine import checkpoint
from vitcli.engine.checkpoint import Snapshot, clean_up, load_tensors, mark_best, prune, write
from vitcli.errors import DiskError
from vitcli.weights.checkpoint_folders import best_checkpoint, checkpoints, newest_valid, step_of

CALLS = ("open", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "chmod", "symlink")


class Crash(BaseException):
    """As kill -9: nothing of the program's own clean-up runs."""


def save(run: Path, step: int, value: float, best_step: int | None = None) -> Path:
    tensors = {"model": {"w": torch.full((64,), value)}, "optimizer": {"m": torch.full((64,), -value)}}
    (run / "checkpoints").mkdir(exist_ok=True)
    return write(run, Snapshot(step, tensors, {"progress": {"step": step, "best_step": best_step}}))


def count_calls(monkeypatch: pytest.MonkeyPatch, stop_at: int, error: BaseException | None = None) -> list[str]:
    """Let the `stop_at`-th call of a file-system function crash before it is done; returns the log of calls."""
    log: list[str] = []
    for name in CALLS:
        real = getattr(os, name)

        def counted(*args, _name=name, _real=real, **keys):
            log.append(_name)
            if len(log) == stop_at:
                raise error or Crash
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


@pytest.mark.parametrize("number", [errno.EIO, errno.EINTR, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_refusal_at_every_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    """EIO and EINTR once: the save succeeds. Anything else: DiskError, the old checkpoint, and no temporary folder."""
    monkeypatch.setattr(disk, "_WAITS", (0, 0, 0))
    passing = number in (errno.EIO, errno.EINTR)
    for k in range(1, 200):
        run = tmp_path / str(k)
        run.mkdir()
        save(run, 10, 1.0)
        with pytest.MonkeyPatch.context() as patch:
            log = count_calls(patch, stop_at=k, error=OSError(number, os.strerror(number)))
            try:
                save(run, 10, 2.0)
            except DiskError:
                expected = (1.0, 2.0)
                assert not passing
            else:
                expected = (2.0,)
        if len(log) < k:
            break
        folder, damaged = newest_valid(run)
        assert folder is not None
        assert not damaged
        assert load_tensors(folder, "model")["w"][0].item() in expected
        assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".writing")]
    assert k > 10


@pytest.mark.parametrize("number", [errno.EIO, errno.EINTR])
def test_what_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    monkeypatch.setattr(disk, "_WAITS", (0, 0, 0))
    save(tmp_path, 1, 1.0)
    tries = []

    def refused(*_):
        tries.append(1)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(DiskError, match="checkpoint 2 cannot be written"):
        save(tmp_path, 2, 2.0)
    assert len(tries) == 4
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000001"]


FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncate", "empty", "flip", "zero", "delete"])
def test_damage_is_found_and_the_one_before_is_used(tmp_path: Path, damage: str, name: str):
    save(tmp_path, 1, 1.0)
    file = save(tmp_path, 2, 2.0) / name
    content = bytearray(file.read_bytes())
    flipped = bytes([*content[:-5], content[-5] ^ 4, *content[-4:]])
    changed = {"truncate": content[:-10], "empty": b"", "flip": flipped, "zero": bytes(len(content))}
    file.write_bytes(changed[damage]) if damage in changed else file.unlink()
    newest, damaged = newest_valid(tmp_path)
    assert newest is not None
    assert newest.name == "step-00000001"
    assert len(damaged) == 1
    assert re.search(f"step-00000002 is damaged .*{name}", damaged[0])


def test_names_of_others_are_never_touched(tmp_path: Path):
    """Copies of the user's, and what a living process is writing; only what a dead one left goes."""
    save(tmp_path, 4, 1.0)
    folder = tmp_path / "checkpoints"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        theirs = [
            "step-00000004-keep", "step-00000004.bak", "step-00000004.old", "step-4", "step-0000000x", "notes",
            ".trash-mine", ".writing-00000003", f".writing-00000003-{other.pid}", f".best-{other.pid}",
        ]  # fmt: skip
        for name in theirs:
            shutil.copytree(folder / "step-00000004", folder / name)
        (folder / "step-00000009").symlink_to("step-00000004-keep")
        (folder / "step-00000008").write_text("")
        with subprocess.Popen(["true"]) as ended:
            pass
        for name in (f".writing-00000005-{ended.pid}", f".trash-00000005-{ended.pid}", f".best-{ended.pid}"):
            shutil.copytree(folder / "step-00000004", folder / name)
        clean_up(tmp_path)
        assert checkpoints(tmp_path) == [folder / "step-00000004"]
        save(tmp_path, 5, 2.0)
        prune(tmp_path, policy="latest_k", keep=1, primary={}, best_step=None)
        found = sorted(path.name for path in folder.iterdir())
        assert found == sorted([*theirs, "step-00000005", "step-00000008", "step-00000009"])
        assert newest_valid(tmp_path) == (folder / "step-00000005", [])
        other.kill()


def test_a_file_with_the_name_of_a_checkpoint_is_in_the_way(tmp_path: Path):
    save(tmp_path, 1, 1.0)
    (tmp_path / "checkpoints" / "step-00000002").write_text("mine")
    with pytest.raises(DiskError, match="checkpoint 2 cannot be written"):
        save(tmp_path, 2, 2.0)
    assert (tmp_path / "checkpoints" / "step-00000002").read_text() == "mine"


def test_without_symbolic_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The best checkpoint is found by state.json."""

    def none(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", none)
    for step in (1, 2, 3):
        folder = save(tmp_path, step, float(step), best_step=min(step, 2))
        mark_best(folder)
        prune(tmp_path, policy="latest_k", keep=1, primary={}, best_step=min(step, 2))
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-00000002", "step-00000003"]
    assert best_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-00000002"
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000002")
    assert best_checkpoint(tmp_path) is None


def test_a_folder_called_best_is_left_alone(tmp_path: Path):
    """`cp -rL` copies the link as a folder."""
    folder = save(tmp_path, 1, 1.0)
    shutil.copytree(folder, tmp_path / "checkpoints" / "best")
    mark_best(folder)
    assert not (tmp_path / "checkpoints" / "best").is_symlink()


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, 1, 1.0)

    def full(*args, **keys):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DiskError, match=r"the disk is full: checkpoint 2 cannot be written .*MiB are free"):
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
        prune(tmp_path, policy=policy, keep=2, primary=primary, best_step=2)
    assert {step_of(folder) for folder in checkpoints(tmp_path)} == kept
    assert (tmp_path / "checkpoints" / "best").resolve().name == "step-00000002"
