"""A run that no longer improves ends as done, on all ranks, and goes on when it is asked to wait longer."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.test_resume import final_bytes, metrics
from tests.support.commands import options

#: a rate that changes no answer: the first epoch is the best
STILL = {
    "dataset": "digits", "model": "fvit", "depth": 1, "image_resize": 32, "num_samples": 64, "batch_size": 32,
    "epoch_size": 6, "lr": 1e-12, "num_parallel_workers": 0, "early_stopping_epochs": 2, "ckpt_save_interval": 100,
    "ema": True,
}  # fmt: skip


def epochs_of(run: Path) -> list[int]:
    return [line["epoch"] for line in metrics(run) if line["kind"] == "val"]


def status(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


def good(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_ends_goes_on_and_is_the_same_run(tmp_path: Path, vitcli):
    run = tmp_path / "run"
    said = good(vitcli("train", *options(STILL), "--run_dir", "run"))
    assert "top1 has not improved for 2 epochs" in said
    assert epochs_of(run) == [1, 2, 3]
    assert status(run)["status"] == "done"
    assert status(run)["stopped_early"].startswith("top1 has not improved")
    good(vitcli("train", "--resume", "run"))
    assert epochs_of(run) == [1, 2, 3], "it is not trained further"
    good(vitcli("train", "--resume", "run", "--early_stopping_epochs", 3))
    assert epochs_of(run) == [1, 2, 3, 4]
    good(vitcli("train", "--resume", "run", "--early_stopping_epochs", "null"))
    assert epochs_of(run) == [1, 2, 3, 4, 5, 6]
    assert status(run)["stopped_early"] is None
    good(vitcli("train", *options(STILL | {"early_stopping_epochs": "null"}), "--run_dir", "whole"))
    assert final_bytes(run) == final_bytes(tmp_path / "whole")


@pytest.mark.slow
def test_all_ranks_agree(tmp_path: Path, torchrun):
    good(torchrun(2, "vitcli", "train", *options(STILL | {"batch_size": 16}), "--run_dir", "run"))
    assert epochs_of(tmp_path / "run") == [1, 2, 3]
    assert status(tmp_path / "run")["stopped_early"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"val_while_train": False}, "nothing is evaluated"),
        ({"evaluate": "knn"}, "waits for top1, which no evaluator of this run measures"),
    ],
)
def test_without_the_number_it_is_refused(vitcli, keys: dict[str, object], words: str):
    done = vitcli("train", *options(STILL | keys))
    assert done.returncode == 2
    assert words in done.stderr
