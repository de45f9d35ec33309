"""Rare classes: weights in the loss and a balanced order, in runs as a user starts them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.e2e.test_resume import final_bytes, metrics
from tests.support.commands import options

TINY = {
    "model": "fvit", "depth": 1, "image_resize": 32, "batch_size": 4, "epoch_size": 2, "num_parallel_workers": 0,
    "log_interval": 1, "ema": True, "ckpt_save_steps": 3, "sampler": "balanced", "class_weights": "auto",
}  # fmt: skip


@pytest.fixture
def imbalanced(make_image_folder: Callable[[dict[str, int]], Path]) -> Path:
    val = {"val/cat": 2, "val/dog": 2, "val/emu": 1}
    return make_image_folder({"train/cat": 14, "train/dog": 4, "train/emu": 2} | val)


@pytest.mark.slow
def test_a_balanced_run_resumes_in_mid_epoch_bitwise(tmp_path: Path, imbalanced: Path, vitcli):
    words = ["train", "--data_dir", imbalanced, *options(TINY)]
    whole = vitcli(*words, "--run_dir", "whole")
    assert whole.returncode == 0, whole.stderr
    assert "3.333  (2 images)" in whole.stdout  # 20 / (3 * 2)
    stored = yaml.safe_load((tmp_path / "whole" / "recipe.yaml").read_text())
    assert stored["class_weights"] == pytest.approx([20 / 42, 20 / 12, 20 / 6])
    run = shutil.copytree(tmp_path / "whole", tmp_path / "run", symlinks=True)
    for folder in (run / "checkpoints").glob("step-*"):
        if folder.name > "step-00000003":
            shutil.rmtree(folder)
    resumed = vitcli(*words, "--run_dir", "run", "--resume", "auto", "--num_parallel_workers", 2)
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing at step 3" in resumed.stdout
    assert final_bytes(run) == final_bytes(tmp_path / "whole")
    assert metrics(run) == metrics(tmp_path / "whole")


@pytest.mark.slow
def test_two_ranks_see_the_balanced_order_of_one(tmp_path: Path, imbalanced: Path, vitcli, torchrun):
    """A network without BatchNorm has the same losses; the order of the samples is what could differ."""
    keys = TINY | {"class_weights": "null", "epoch_size": 1}
    words = ["train", "--data_dir", imbalanced, *options(keys)]
    one = vitcli(*words, "--run_dir", "one")
    assert one.returncode == 0, one.stderr
    two = torchrun(2, "vitcli", *words, "--batch_size", 2, "--run_dir", "two")
    assert two.returncode == 0, two.stderr
    losses = [[line["loss"] for line in metrics(tmp_path / run) if "loss" in line] for run in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=2e-5)


def test_a_list_that_does_not_fit_is_refused(imbalanced: Path, vitcli):
    done = vitcli("train", "--data_dir", imbalanced, *options(TINY | {"class_weights": "1,2"}))
    assert done.returncode == 2
    assert "a list of 2, but the data has 3 classes: 'cat', 'dog', 'emu'" in done.stderr
    unlabeled = options(TINY | {"task": "byol", "class_weights": "null"})
    shutil.rmtree(imbalanced / "val")
    for folder in (imbalanced / "train").iterdir():
        for file in folder.iterdir():
            file.rename(imbalanced / "train" / f"{folder.name}{file.name}")
        folder.rmdir()
    done = vitcli("train", "--data_dir", imbalanced, *unlabeled)
    assert done.returncode == 2, done.stdout
    assert "sampler: balanced needs one class of each image" in done.stderr
