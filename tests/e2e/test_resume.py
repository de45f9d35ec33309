"""A run that was stopped or killed and continued is bitwise the run that was not."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import SMALL, environment, options, python_m
from vitcli.weights.checkpoint_folders import checkpoints, step_of
from vitcli.weights.manifest import write_manifest

HARNESS = Path(__file__).with_name("kill_harness.py")
RUN = ["train", "-c", "quickstart", *options(SMALL)]
TENSORS = ("model", "ema", "optimizer")


def final_bytes(run: Path) -> dict[str, bytes]:
    """Of the last checkpoint, whose step is in the names."""
    folder = max(checkpoints(run), key=step_of)
    return {f"{folder.name}/{name}": (folder / f"{name}.safetensors").read_bytes() for name in TENSORS}


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


def killed_until_done(
    run: Path, whole: Path, seed: int, mean_seconds: float, keys: dict[str, object], *, limit_seconds: float = 900
) -> int:
    """Train in processes that are killed until the run is done; how many were. It must equal the run `whole`."""
    words = options(SMALL | {"ckpt_save_steps": 1, "device": "cpu"} | keys)
    command = [sys.executable, HARNESS, run, str(seed), str(mean_seconds), "--", *words]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=limit_seconds, check=False
    )
    assert done.returncode == 0, done.stderr
    assert final_bytes(run) == final_bytes(whole)
    assert metrics(run) == metrics(whole), "no line is missing, none is there twice"
    left = {path.name for path in (run / "checkpoints").iterdir()}
    assert not [name for name in left if not name.startswith("step-") and name != "best"], left
    return int(done.stdout)


@pytest.mark.parametrize("ckpt_async", [True, pytest.param(False, marks=pytest.mark.soak)])
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_random_moments(uninterrupted: Path, tmp_path: Path, ckpt_async: bool):
    keys = {"num_parallel_workers": 0, "ckpt_async": ckpt_async}
    kills = killed_until_done(tmp_path / "run", uninterrupted, int(ckpt_async), 3.0, keys)
    assert kills >= 1, "the harness must have killed something"


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_killed_a_hundred_times(tmp_path: Path, vitcli, amp: str):
    """Checkpoints in the background, an average, mixup, accumulation, loader workers."""
    kills, runs = 0, 0
    keys = {"amp": amp, "batch_size": 16, "gradient_accumulation_steps": 2}
    whole = tmp_path / amp
    assert vitcli(*RUN, *options(keys), "--run_dir", whole).returncode == 0
    while kills < 100:
        run, runs = tmp_path / "run", runs + 1
        kills += killed_until_done(run, whole, runs, 1.5, keys | {"num_parallel_workers": 2}, limit_seconds=3000)
        shutil.rmtree(run)
    print(f"{kills} kills in {runs} runs")


@pytest.mark.parametrize("sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)])
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


@pytest.mark.slow
def test_lost_data_json_is_written_again(uninterrupted: Path, tmp_path: Path, vitcli):
    """From the checkpoint; an old one that does not know the images is refused, because they may be others."""
    run = shutil.copytree(uninterrupted, tmp_path / "run", symlinks=True)
    before = (run / "data.json").read_text()
    for damaged in (None, b"", b'{"class_names": ["0"'):
        (run / "data.json").unlink()
        if damaged is not None:
            (run / "data.json").write_bytes(damaged)
        resumed = vitcli("train", "--resume", run)
        assert resumed.returncode == 0, resumed.stderr
        assert "it is written again from step-00000016" in resumed.stdout
        assert (run / "data.json").read_text() == before
    (run / "data.json").unlink()
    state_file = run / "checkpoints" / "step-00000016" / "state.json"
    state = json.loads(state_file.read_text())
    del state["data"]
    state_file.write_text(json.dumps(state))
    write_manifest(state_file.parent)
    old = vitcli("train", "--resume", run)
    assert old.returncode == 4
    assert "does not say with which images the run began" in old.stderr


@pytest.mark.slow
def test_copies_of_checkpoints_do_not_disturb(uninterrupted: Path, tmp_path: Path, vitcli):
    """Training deletes none of them, resume and validate do not read them."""
    run = shutil.copytree(uninterrupted, tmp_path / "run", symlinks=True)
    folder = run / "checkpoints"
    for name in ("step-00000016-keep", "step-00000008.bak", "step-00000099 (copy)"):
        shutil.copytree(folder / "step-00000008", folder / name)
    shutil.rmtree(folder / "step-00000016")
    resumed = vitcli("train", "--resume", run, "--keep_checkpoint_max", 1, "--num_parallel_workers", 0)
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing at step 8" in resumed.stdout
    assert final_bytes(run) == final_bytes(uninterrupted)
    assert {"step-00000016-keep", "step-00000008.bak", "step-00000099 (copy)"} < {p.name for p in folder.iterdir()}
    (folder / "best").unlink()  # as on a file system without links
    assert vitcli("validate", run).returncode == 0


def test_refusals(tmp_path: Path, vitcli):
    """Another recipe, other data, a run in use, a run that is there already."""
    run = tmp_path / "run"
    words = ["train", "-c", "quickstart", *options(SMALL | {"epoch_size": 1, "num_samples": 32})]
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
    batch = vitcli("train", "--resume", run, "--batch_size", 8)
    assert batch.returncode == 4
    assert "global batch" in batch.stderr
    nowhere = vitcli("train", "--resume", tmp_path / "no")
    assert nowhere.returncode == 4
    inside = vitcli("train", "--resume", run / "checkpoints" / "best")
    assert inside.returncode == 4
    assert "is a checkpoint, not a run" in inside.stderr
    assert sorted((p, p.stat().st_mtime) for p in run.rglob("*") if p.name != ".lock") == before
