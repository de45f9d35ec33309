"""Runs whose images are in memory: the same weights and numbers as without, also after a resume in an epoch."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.commands import run_here
from vitcli import load_recipe, train

KEYS = {
    "dataset": "digits", "num_samples": 128, "batch_size": 16, "epoch_size": 2, "image_resize": 8, "in_channels": 3,
    "model": "vit_ti_patch16", "patch_size": 4, "depth": 1, "train_crop": "padded", "hflip": 0.5, "re_prob": 0.25,
    "mixup": 0.8, "cutmix": 1.0, "ema": True, "log_interval": 1, "device": "cpu",
}  # fmt: skip


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step-{step:08d}"
    return load_file(folder / "model.safetensors") | load_file(folder / "ema.safetensors")


@pytest.mark.parametrize("cache", ["ram", "device"])
def test_a_cache_changes_nothing(tmp_path: Path, cache: str):
    plain = train(load_recipe(None, **KEYS, run_dir=tmp_path / "plain"))
    changed = {"cache": cache, "ckpt_save_steps": 5, "keep_checkpoint_max": 9, "run_dir": tmp_path / "run"}
    cached = train(load_recipe(None, **KEYS | changed))
    assert cached.last == plain.last
    expected, found = weights(tmp_path / "plain", 16), weights(tmp_path / "run", 16)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for later in (8, 10, 15, 16):
        folder = tmp_path / "run" / "checkpoints" / f"step-{later:08d}"
        if folder.exists():
            folder.rename(tmp_path / folder.name)
    train(load_recipe(tmp_path / "run" / "recipe.yaml", resume=str(tmp_path / "run")))  # from step 5
    again = weights(tmp_path / "run", 16)
    assert all(torch.equal(expected[name], again[name]) for name in expected)


def test_a_device_that_cannot_do_it_says_so(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [f"--{name}={value}" for name, value in KEYS.items()]
    assert run_here("train", *words, "--cache", "device", "--color_jitter", "0.4") == 2
    said = capsys.readouterr().err
    assert "cache: device crops, flips, erases and mixes, but does not change colors" in said
    assert "set cache: ram" in said
