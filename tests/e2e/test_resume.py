"""A run that was stopped or killed and continued is bitwise the run that was not."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import SMALL, environment, options, python_m
from vitcli.weights.manifest import write_manifest

HARNESS = Path(__file__).with_name("kill_harness.py")
RUN = ["train", "-c", "quickstart", *options(SMALL)]


def final_bytes(run: Path, step: int = 16) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{step:08d}"
    return {name: (folder / f"{name}.safetensors").read_bytes() for name in ("model", "ema", "optimizer")}


def metrics(run: Path) -> list[dict]:
    """The lines of metrics.jsonl without what depends on the clock."""
    clock = ("time", "images_per_second", "data_wait_ratio")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(python_m("vitcli", *RUN, "--run_dir", run), env=environment(), check=True, timeout=120)
    return run


@pytest.mark.parametrize(("workers", "amp"), [(0, "off"), pytest.param(2, "bf16", marks=pytest.mark.soak)])
@pytest.mark.slow
def test_killed_at_random_moments(uninterrupted: Path, tmp_path: Path, vitcli, workers: int, amp: str):
    if amp != "off":
        uninterrupted = tmp_path / "whole"
        assert vitcli(*RUN, "--run_dir", uninterrupted, "--amp", amp).returncode == 0
    words = options(SMALL | {"num_parallel_workers": workers, "ckpt_save_steps": 1, "device": "cpu", "amp": amp})
    command = [sys.executable, HARNESS, tmp_path / "run", str(workers), "1.5", "--", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1, "the harness must have killed something"
    assert final_bytes(tmp_path / "run") == final_bytes(uninterrupted)
    assert metrics(tmp_path / "run") == metrics(uninterrupted), "no line is missing, none is there twice"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_signal_saves_and_resumes(uninterrupted: Path, tmp_path: Path, vitcli, sent: int):
    run = tmp_path / "run"
    command = python_m("vitcli", *RUN, "--run_dir", run, "--log_interval", 1)
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("step 5 "):
                process.send_signal(sent)
        errors = process.stderr.read()
    assert process.returncode == 75, errors
    assert "Traceback" not in errors
    assert "vitcli train --resume" in errors
    assert json.loads((run / "status.json").read_text())["status"] == "interrupted"
    saved = sorted(p.name for p in (run / "checkpoints").glob("step-*"))
    assert len(saved) == 1
    assert saved[0] >= "step-00000005"
    resumed = vitcli("train", "--resume", run, "--num_parallel_workers", 2)
    assert resumed.returncode == 0, resumed.stderr
    assert final_bytes(run) == final_bytes(uninterrupted)
    assert json.loads((run / "status.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_damaged_newest_checkpoint_is_named_and_skipped(uninterrupted: Path, tmp_path: Path, vitcli):
    run = shutil.copytree(uninterrupted, tmp_path / "run", symlinks=True)
    newest = run / "checkpoints" / "step-00000016" / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    newest.write_bytes(content)
    second = vitcli("train", "--resume", run)
    assert second.returncode == 0, second.stderr
    assert "step-00000016 is damaged" in second.stdout
    assert "model.safetensors" in second.stdout
    assert "continuing at step 8" in second.stdout
    assert final_bytes(run) == final_bytes(uninterrupted)
    assert metrics(run) == metrics(uninterrupted)
    for folder in (run / "checkpoints").glob("step-*"):
        (folder / "optimizer.safetensors").write_bytes(b"")
    third = vitcli("train", "--resume", run)
    assert third.returncode == 4
    assert "cannot be continued" in third.stderr
    assert "Traceback" not in third.stderr


@pytest.mark.slow
def test_best_metric_survives(uninterrupted: Path, tmp_path: Path, vitcli):
    """The best epoch is remembered over a resume: a later, worse epoch does not become the best."""
    run = shutil.copytree(uninterrupted, tmp_path / "run", symlinks=True)
    state_file = run / "checkpoints" / "step-00000008" / "state.json"
    state = json.loads(state_file.read_text())
    state["progress"] |= {"best": 99.0, "best_step": 8}
    state_file.write_text(json.dumps(state))
    write_manifest(state_file.parent)
    shutil.rmtree(run / "checkpoints" / "step-00000016")
    (run / "checkpoints" / "best").unlink()  # as if killed before the link was set
    resumed = vitcli("train", "--resume", run)
    assert resumed.returncode == 0, resumed.stderr
    progress = json.loads((run / "checkpoints" / "step-00000016" / "state.json").read_text())["progress"]
    assert progress["best_step"] == 8
    assert progress["best"] == 99.0
    assert (run / "checkpoints" / "best").resolve().name == "step-00000008"


def test_refusals(tmp_path: Path, vitcli):
    """Another recipe, other data, a run in use, a run that is there already."""
    run = tmp_path / "run"
    words = ["train", "-c", "quickstart", *options(SMALL | {"epoch_size": 1, "num_samples": 64})]
    assert vitcli(*words, "--run_dir", run).returncode == 0
    before = sorted((p, p.stat().st_mtime) for p in run.rglob("*") if p.name != ".lock")
    other = vitcli("train", "--resume", run, "--mixup", 0.5)
    assert other.returncode == 4
    assert "mixup" in other.stderr
    assert "0.8 -> 0.5" in other.stderr
    there = vitcli(*words, "--run_dir", run)
    assert there.returncode == 2
    assert "holds a run already" in there.stderr
    data = vitcli("train", "--resume", run, "--dataset", "synthetic")
    assert data.returncode == 4
    batch = vitcli("train", "--resume", run, "--batch_size", 16)
    assert batch.returncode == 4
    assert "global batch" in batch.stderr
    nowhere = vitcli("train", "--resume", tmp_path / "no")
    assert nowhere.returncode == 4
    inside = vitcli("train", "--resume", run / "checkpoints" / "best")
    assert inside.returncode == 4
    assert "is a checkpoint, not a run" in inside.stderr
    assert sorted((p, p.stat().st_mtime) for p in run.rglob("*") if p.name != ".lock") == before
