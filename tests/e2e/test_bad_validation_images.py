"""Unreadable validation images are all named at once; once fixed, the run evaluates and goes on as an untouched one."""

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.test_resume import final_bytes, metrics
from tests.support.commands import options

TINY = {
    "model": "fvit", "depth": 1, "image_resize": 32, "batch_size": 4, "val_batch_size": 2, "epoch_size": 2,
    "num_parallel_workers": 1, "ema": True,
}  # fmt: skip
#: file -> what is wrong with it; the images of cat are 0 .. 5, those of dog 6 .. 11, and rank 1 evaluates the odd ones
REASONS = {"cat/1.png": "truncated", "dog/0.png": "the file is empty", "dog/5.png": "not an image of a known format"}


def spoil(val: Path) -> None:
    truncated, empty, text = (val / name for name in REASONS)
    truncated.write_bytes(truncated.read_bytes()[:-40])
    empty.write_bytes(b"")
    text.write_text("<html>404 Not Found</html>")


@pytest.mark.slow
def test_two_ranks_name_all_and_the_repaired_run_is_the_same(tmp_path: Path, image_folder: Path, torchrun):
    words = ["train", "--data_dir", image_folder, *options(TINY), "--run_dir"]
    assert torchrun(2, "vitcli", *words, "whole").returncode == 0
    good = shutil.copytree(image_folder / "val", tmp_path / "good")
    spoil(image_folder / "val")
    failed = torchrun(2, "vitcli", *words, "run")
    assert "3 of 12 images to evaluate cannot be read" in failed.stderr
    assert "exitcode  : 3" in failed.stderr
    listed = [json.loads(line) for line in (tmp_path / "run" / "bad_images.jsonl").read_text().splitlines()]
    for line, (name, reason) in zip(listed, REASONS.items(), strict=True):
        assert line["name"].endswith(f"val/{name}")
        assert reason in line["reason"]
        assert f"val/{name}: {line['reason']}" in failed.stderr
    assert [line["kind"] for line in metrics(tmp_path / "run")] == ["train"]
    shutil.copytree(good, image_folder / "val", dirs_exist_ok=True)
    resumed = torchrun(2, "vitcli", "train", "--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert "the validation images changed since the last evaluation could not read 3 of them" in resumed.stdout
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")
    assert not (tmp_path / "run" / "bad_images.jsonl").read_text()


@pytest.mark.slow
def test_validate_names_all_and_only_a_failed_evaluation_excuses_changes(tmp_path: Path, image_folder: Path, vitcli):
    words = ["train", "--data_dir", image_folder, *options(TINY), "--run_dir", "run"]
    assert vitcli(*words).returncode == 0
    spoil(image_folder / "val")
    done = vitcli("validate", "--ckpt_path", "run", "--eval_crops", 5)
    assert done.returncode == 3
    assert all(f"val/{name}: " in done.stderr for name in REASONS)
    assert "Traceback" not in done.stderr
    refused = vitcli("train", "--resume", "run")
    assert refused.returncode == 4
    assert "val: the same number of images, but other files, sizes or labels" in refused.stderr
