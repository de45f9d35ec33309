"""BYOL by its commands: images without labels, class folders, and what features cannot be used for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.report.pages import read_page
from tests.support.commands import options

NETWORK = options({
    "model": "vit_ti_patch16", "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2, "image_resize": 16,
    "num_parallel_workers": 0,
})  # fmt: skip
BYOL = options({
    "task": "byol", "projector_hidden_dim": 16, "projector_dim": 8, "predictor_hidden_dim": 16, "epoch_size": 1,
    "batch_size": 8, "log_interval": 1, "opt": "lars", "lr": 0.1, "grayscale_prob": 0.2, "solarize_prob": "0.0,0.2",
})  # fmt: skip


def refused(done, code: int, *words: str) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.slow
def test_a_flat_folder_of_images(tmp_path: Path, image_folder: Path, vitcli):
    """Train, resume, measure what needs no labels, write features; what needs labels says so."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted((image_folder / "train").rglob("*.png"))):
        shutil.copy(path, flat / f"{number}.png")
    done = vitcli("train", *NETWORK, *BYOL, "--data_dir", flat, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert "24 + 0 images, no labels" in done.stdout
    assert "effective_rank" in done.stdout
    assert "next: vitcli embed run DIR -o features.npz" in done.stdout
    last = tmp_path / "run" / "checkpoints" / "step-00000003"
    assert {name.split(".")[0] for name in load_file(last / "task.safetensors")} >= {"projector", "predictor", "target"}
    shutil.copytree(tmp_path / "run", tmp_path / "again", symlinks=True)
    assert vitcli("train", "--resume", "again").returncode == 0

    measured = vitcli("validate", "--ckpt_path", "run", "--evaluate", "collapse", "--json", "collapse.json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads((tmp_path / "collapse.json").read_text())["feature_dim"] == 32
    refused(vitcli("validate", "--ckpt_path", "run"), 3, "the evaluator knn needs labeled training images")
    embedded = vitcli("embed", "run", flat, "-o", "features.npz", "--batch_size", 1)
    assert embedded.returncode == 0, embedded.stderr
    with np.load(tmp_path / "features.npz") as stored:
        assert stored["features"].shape == (24, 32)
        assert "labels" not in stored
    refused(vitcli("predict", "run", flat), 2, "has no classifier", "fine-tune it first")
    refused(vitcli("export", "run", "--to", "onnx", "-o", "exported"), 2, "has no classifier")


@pytest.mark.slow
def test_class_folders_measure_the_features(tmp_path: Path, image_folder: Path, vitcli):
    done = vitcli("train", *NETWORK, *BYOL, "--data_dir", image_folder, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert "best knn_top1" in done.stdout
    assert "probe_top1" in done.stdout
    words = "--evaluate", "knn,linear_probe", "--json", "found.json", "--report", "page.html"
    measured = vitcli("validate", "--ckpt_path", "run", *words)
    assert measured.returncode == 0, measured.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    page = read_page((tmp_path / "page.html").read_text())
    assert f"{found['knn_top1']:.2f} % kNN top-1" in page.text
    assert "Measured on the validation images" in page.text, "now, not as the run logged it"
    assert "Worst images" not in page.text, "which of them are right is not known"
    assert found["num_images"] == found["linear_num_images"] == 12
    refused(vitcli("validate", "--ckpt_path", "run", "--evaluate", "top1"), 2, "has no classifier")
    refused(vitcli("validate", "--ckpt_path", "run", "--eval_crops", 5), 2, "--eval_crops has no effect on knn")
    tuned = vitcli("train", *NETWORK, "--data_dir", image_folder, "--ckpt_path", "run", "--batch_size", 8,
                   "--num_samples_ratio", 0.5, "--epoch_size", 1, "--run_dir", "tuned")  # fmt: skip
    assert tuned.returncode == 0, tuned.stderr
    assert "data     12 + 12 images" in tuned.stdout
    assert "head not loaded" in tuned.stdout
    assert vitcli("validate", "--ckpt_path", "tuned").returncode == 0


@pytest.mark.slow
def test_training_images_never_stand_in_for_validation_images(image_folder: Path, vitcli):
    """The nearest neighbor of a training image among the training images is itself: 100 % of nothing."""
    shutil.rmtree(image_folder / "val")
    words = ["train", *NETWORK, *BYOL, "--data_dir", image_folder]
    refused(vitcli(*words, "--evaluate", "knn"), 3, "needs labeled validation images, and there are none")
    refused(vitcli(*words, "--evaluate", "top1"), 2, "needs a classifier, and `task: byol` trains none")
