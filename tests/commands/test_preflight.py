"""A dry run says what the training then does, writes nothing, and refuses what a training refuses."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import options

TINY = options({"model": "fvit", "depth": 1, "image_resize": 32, "batch_size": 8, "epoch_size": 2, "ema": True})
DRY = ["--dry_run", "True"]


def row(done: subprocess.CompletedProcess, name: str) -> str:
    found = re.findall(rf"│ {name} +│ (.*?) *│", done.stdout)  # the sections of the recipe are rows too, and come first
    assert found, done.stdout + done.stderr
    return found[-1]


@pytest.mark.slow
def test_says_what_the_training_does_and_writes_nothing(tmp_path: Path, image_folder: Path, vitcli):
    # but for cat/5.png, all images of val are in train too; now one of them under another name
    (image_folder / "val" / "cat" / "0.png").write_bytes((image_folder / "train" / "dog" / "3.png").read_bytes())
    (image_folder / "train" / "cat" / "5.png").write_text("no image")
    words = ["train", "--data_dir", image_folder, *TINY, "--run_dir", "run", "--on_bad_image", "skip"]
    words += ["--max_bad_ratio", 0.2]
    done = vitcli(*words, *DRY)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()
    assert (
        row(done, "unreadable in train") == "1 of 24 that were read, such as cat/5.png: not an image of a known format"
    )
    assert row(done, "unreadable in val") == "0 of 12 that were read"
    assert row(done, "in both splits") == "11 of the images that were read, such as cat/0.png = dog/3.png"
    assert row(done, "steps") == "6 of 8 images: 2 epochs x 3"
    assert "will wait for the" in row(done, "waiting")
    trained = vitcli(*words)
    assert trained.returncode == 0, trained.stderr
    parameters = re.search(r"fvit, ([\d,]+) parameters", trained.stdout)[1]
    assert f"{parameters} parameters" in row(done, "model")
    tensors = (tmp_path / "run" / "checkpoints" / "step-00000006").glob("*.safetensors")
    megabytes = 2 * sum(file.stat().st_size for file in tensors) / 1e6
    said = re.match(r"(\d+) MB for 2 checkpoints", row(done, "disk, estimated"))
    assert int(said[1]) == pytest.approx(megabytes, abs=1)
    again = vitcli(*words, *DRY)
    assert again.returncode == 2
    assert "run holds a run already" in again.stderr


@pytest.mark.slow
def test_two_ranks_measure_together(image_folder: Path, torchrun):
    done = torchrun(2, "vitcli", "train", "--data_dir", image_folder, *TINY, *DRY, "--num_parallel_workers", 0)
    assert done.returncode == 0, done.stderr
    assert row(done, "steps") == "2 of 16 images: 2 epochs x 1"
    assert row(done, "unreadable in train") == "0 of 24 that were read"


def test_refuses_what_a_training_refuses(tmp_path: Path, image_folder: Path, vitcli):
    for words, code in ((["--batch_size", 64], 3), (["--opt", "adamx"], 2), (["--resume", "run"], 2)):
        done = vitcli("train", "--data_dir", image_folder, *TINY, *words, *DRY)
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith("error: ")
    assert not (tmp_path / "runs").exists()


def test_a_training_may_read_all_images_first(tmp_path: Path, image_folder: Path, vitcli):
    (image_folder / "val" / "dog" / "4.png").write_bytes(b"")
    done = vitcli("train", "--data_dir", image_folder, *TINY, "--check_data", "full", "--run_dir", "run")
    assert done.returncode == 3
    assert "1 of 12 images read of the split val cannot be read:\n  dog/4.png: the file is empty" in done.stderr
    assert "step" not in done.stdout.split("training ")[0]
    assert not (tmp_path / "run" / "checkpoints").exists()
