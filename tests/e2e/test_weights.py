"""Weights of other projects, from the file to an evaluated run, with the commands a user types."""

import json
from pathlib import Path

import pytest
import torch
import yaml

import vitcli
from tests.models.vit_oracles import hf_vit, torchvision_vit
from vitcli.errors import ResumeError, WeightsError

#: recipe keys of the tiny ViT of the oracles
TINY_VIT = {
    "model": "vit_b_patch16", "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "patch_size": 8,
    "image_resize": 32, "batch_size": 8, "epoch_size": 2, "num_parallel_workers": 0,
}  # fmt: skip


def test_from_torchvisions_file_to_a_continued_run(tmp_path: Path, image_folder: Path, monkeypatch, capsys):
    """The run adopts the preprocessing of the weights, records it, and keeps it when resumed."""
    monkeypatch.chdir(tmp_path)
    torch.save(torchvision_vit().state_dict(), "tv.pth")
    recipe = vitcli.load_recipe(**TINY_VIT, data_dir=image_folder, ckpt_path="tv.pth", run_dir="run")
    vitcli.train(recipe)
    said = capsys.readouterr().out
    assert "preprocessing of the weights: interpolation bilinear" in said
    assert "the file has 5 classes, the model 2" in said
    written = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert written["interpolation"] == "bilinear"
    assert written["ckpt_path"] == str(tmp_path / "tv.pth")
    again = vitcli.load_recipe(**TINY_VIT, data_dir=image_folder, ckpt_path="tv.pth", run_dir="run", resume="auto")
    assert vitcli.train(again).step == 6
    scores = vitcli.validate(vitcli.load_recipe(ckpt_path="run", num_parallel_workers=0))
    assert scores["num_images"] == 12
    with pytest.raises(ResumeError, match="interpolation"):
        vitcli.train(again.changed(interpolation="lanczos"))


def test_validating_a_folder_of_transformers(tmp_path: Path, image_folder: Path, capsys):
    """Descriptions are not names of folders; another image size is noted; weights that do not fit are refused."""
    hf_vit(id2label={0: "a cat", 1: "a dog"}).save_pretrained(tmp_path / "hf")
    config = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(config))
    words = {**TINY_VIT, "data_dir": image_folder, "ckpt_path": tmp_path / "hf", "image_resize": 48}
    assert vitcli.validate(vitcli.load_recipe(**words))["num_images"] == 12
    said = capsys.readouterr().out
    assert "mean [0.5, 0.5, 0.5]" in said
    assert "sorted order" in said
    assert "4 x 4 positions in the file, 6 x 6 in the model" in said
    with pytest.raises(WeightsError, match="does not fit"):
        vitcli.validate(vitcli.load_recipe(**{**words, "patch_size": 16}))


def test_the_commands(tmp_path: Path, vitcli):
    torch.save(torchvision_vit().state_dict(), tmp_path / "tv.pth")
    shown = vitcli("weights", "show", "tv.pth")
    for words in ("torchvision", "embed_dim: 32", "num_heads: ?", "bilinear", "conv_proj.weight", "(32, 3, 8, 8)"):
        assert words in shown.stdout, shown.stdout + shown.stderr
    done = vitcli("weights", "convert", "tv.pth", "--to", "timm", "-o", "timm", "--num_heads", 2)
    assert done.returncode == 0, done.stderr
    assert "wrote timm" in done.stdout
    again = vitcli("weights", "convert", "tv.pth", "--to", "timm", "-o", "timm", "--num_heads", 2)
    assert again.returncode == 2
    assert "timm exists" in again.stderr
    assert "Traceback" not in again.stderr
