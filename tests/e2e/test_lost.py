"""What a run needs is taken from it while it trains: a worker, its images, another rank. It saves, then it ends."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.e2e.test_distributed import NORM_FREE
from tests.e2e.test_signals import LAUNCHER, PAUSES, TINY, children, seconds_until_gone, start, wait_for
from tests.support.commands import options, python_m
from vitcli.weights.checkpoint_folders import checkpoints

NEVER = {"ckpt_save_interval": 100, "val_while_train": False}


def tensors(checkpoint: Path) -> dict:
    return {
        (name, key): value
        for name in ("model", "optimizer")
        for key, value in load_file(checkpoint / f"{name}.safetensors").items()
    }


def same(a: Path, b: Path) -> bool:
    one, other = tensors(a), tensors(b)
    return one.keys() == other.keys() and all(value.equal(other[key]) for key, value in one.items())


def status(run: Path) -> tuple[str, int, str]:
    facts = json.loads((run / "status.json").read_text())
    return facts["status"], facts["exit_code"], facts["message"]


@pytest.mark.slow
def test_killed_worker(tmp_path: Path, vitcli):
    """As the OOM killer does it. The step is saved; the run goes on to the same result as one that was left alone."""
    words = ["train", "-c", "quickstart", "--plugin", PAUSES, *options(TINY | {"epoch_size": 6} | NEVER), "--run_dir"]
    assert vitcli(*words, "whole").returncode == 0
    with start(python_m("vitcli", *words, "run", "--num_parallel_workers", 1), tmp_path, PAUSE="step") as process:
        wait_for(process, "paused")
        pid = int((tmp_path / "run" / ".lock").read_text().split()[1])  # the fork server's client is not the parent
        (worker,) = children(pid)
        os.kill(worker, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "a decoding process was killed" in errors
    assert "shm-size" in errors
    assert "Traceback" not in errors
    (saved,) = checkpoints(tmp_path / "run")
    assert f"step {int(saved.name[5:])} is saved" in errors
    assert status(tmp_path / "run")[:2] == ("interrupted", 75)
    assert vitcli("train", "--plugin", PAUSES, "--resume", "run").returncode == 0
    assert same(*(tmp_path / run / "checkpoints/step-00000024" for run in ("whole", "run")))


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.slow
def test_vanished_images(tmp_path: Path, vitcli, image_folder: Path, accumulation: int):
    """The folder of the images is taken away, in the middle of a step or not; once it is back, the run goes on."""
    words = options(TINY | NEVER | {"batch_size": 2, "image_resize": 32, "num_parallel_workers": 0, "epoch_size": 20})
    words += [
        "--gradient_accumulation_steps",
        str(accumulation),
        "--data_dir",
        image_folder,
        "--ema",
        True,
        "--run_dir",
    ]
    words = ["train", "--plugin", PAUSES, *words]
    assert vitcli(*words, "whole").returncode == 0
    away = image_folder.with_name("away")
    with start(python_m("vitcli", *words, "run"), tmp_path, PAUSE="step", PAUSE_STEP="7") as process:
        wait_for(process, "paused")
        shutil.move(image_folder / "train", away)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "cannot read the image" in errors
    assert "Traceback" not in errors
    step = 7 if accumulation == 1 else 2  # the seventh forward pass begins the third step of three
    assert [path.name for path in checkpoints(tmp_path / "run")] == [f"step-{step:08d}"]
    assert f"step {step} is saved; continue with: vitcli train --resume run" in errors
    shutil.move(away, image_folder / "train")
    assert vitcli("train", "--plugin", PAUSES, "--resume", "run").returncode == 0
    (whole, *_), (run, *_) = (checkpoints(tmp_path / name) for name in ("whole", "run"))
    assert same(whole, run)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.soak)])
@pytest.mark.slow
def test_lost_rank(tmp_path: Path, torchrun, number: int):
    """Rank 1 dies, or hangs: rank 0 saves alone and names rank and step. Continued, the run ends as a whole one."""
    words = ["train", "-c", "quickstart", "--plugin", NORM_FREE, *options(TINY | NEVER | {"model": "norm_free"})]
    words += ["--epoch_size", 30, "--run_dir"]
    with start([*LAUNCHER, "-m", "vitcli", *words, "run"], tmp_path, VITCLI_TIMEOUT_SECONDS="5") as launcher:
        wait_for(launcher, "step 3 ")
        rank_0, rank_1 = children(launcher.pid)
        os.kill(rank_1, number)
        assert seconds_until_gone([rank_0]) < 30
        if number == signal.SIGSTOP:
            os.kill(rank_1, signal.SIGKILL)  # torchrun would do it after 30 s
        _, errors = launcher.communicate(timeout=90)
    (saved,) = checkpoints(tmp_path / "run")
    step = int(saved.name[5:])
    kind, code, message = status(tmp_path / "run")
    assert (kind, code) == ("interrupted", 75)
    lost = "rank 1 of the run died" if number == signal.SIGKILL else "rank 1 of the run did not answer within 5 seconds"
    assert message == f"{lost}; the last complete step is {step}"
    assert f"error: {lost}" in errors
    assert "vitcli/" not in errors, "a traceback through our files"
    assert torchrun(2, "vitcli", "train", "--plugin", NORM_FREE, "--resume", "run").returncode == 0
    assert torchrun(2, "vitcli", *words, "whole").returncode == 0
    assert same(*(tmp_path / run / "checkpoints/step-00000060" for run in ("whole", "run")))
