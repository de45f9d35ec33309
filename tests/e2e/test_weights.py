"""Weights of other projects, from the file to an evaluated run, with the commands a user types."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import vitcli
from tests.models.vit_oracles import hf_vit, torchvision_vit
from tests.support.commands import options
from vitcli.errors import DataError, ResumeError, WeightsError
from vitcli.networks.opened import open_weights
from vitcli.weights.convert import convert_weights

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
    """Other names of classes are refused; another image size is noted; weights that do not fit are refused."""
    hf_vit(id2label={0: "a cat", 1: "a dog"}).save_pretrained(tmp_path / "hf")
    config = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(config))
    words = {**TINY_VIT, "data_dir": image_folder, "ckpt_path": tmp_path / "hf", "image_resize": 48}
    with pytest.raises(DataError, match=r"no class of the data \('cat', 'dog'\) is a class of the network"):
        vitcli.validate(vitcli.load_recipe(**words))
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    words["class_names"] = tmp_path / "names.txt"
    assert vitcli.validate(vitcli.load_recipe(**words))["num_images"] == 12
    said = capsys.readouterr().out
    assert "mean [0.5, 0.5, 0.5]" in said
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


def test_a_file_names_the_outputs(tmp_path: Path, image_folder: Path, vitcli):
    """Weights without names: predict, validate and export take them from a file, and the artifact keeps them."""
    keys = options(TINY_VIT | {"epoch_size": 1, "data_dir": image_folder})
    assert vitcli("train", *keys, "--run_dir", "run").returncode == 0
    weights = open_weights(tmp_path / "run")
    nameless = replace(weights, meta={name: value for name, value in weights.meta.items() if name != "class_names"})
    convert_weights(nameless, "vitcli", tmp_path / "w.safetensors")
    picture = image_folder / "val" / "cat" / "0.png"
    assert "class 0" in vitcli("predict", "w.safetensors", picture).stdout
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    named = ["--class_names", "names.txt"]
    assert "cat" in vitcli("predict", "w.safetensors", picture, *named).stdout

    data = ["--data_dir", image_folder]
    orders = [vitcli("validate", "--ckpt_path", "w.safetensors", *data, "--json", name, *words)
              for name, words in (("assumed.json", []), ("named.json", named))]  # fmt: skip
    assert [done.returncode for done in orders] == [0, 0]
    assert "no names: those of the data are taken in sorted order" in orders[0].stdout
    assert "no names" not in orders[1].stdout
    correct = [json.loads((tmp_path / f"{name}.json").read_text())["correct1"] for name in ("assumed", "named")]
    assert sum(correct) == 12, "with two classes, every image is right in one of the two orders"

    done = vitcli("export", "w.safetensors", "--to", "torch_export", "-o", "exported", *data, *named)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "exported" / "labels.txt").read_text() == "dog\ncat\n"
    (tmp_path / "names.txt").write_text("a dog\na cat\nmore\n")
    for words in (["predict", "w.safetensors", picture], ["predict", "exported", picture]):
        refused = vitcli(*words, *named)
        assert refused.returncode == 3
        assert "names 3 classes, the network has 2" in refused.stderr


def test_a_run_remembers_where_the_file_of_its_classes_is(tmp_path: Path, image_folder: Path, vitcli):
    (tmp_path / "names.txt").write_text("emu\ndog\ncat\n")
    keys = options(TINY_VIT | {"epoch_size": 1, "data_dir": image_folder, "class_names": "names.txt"})
    done = vitcli("train", *keys, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert "1 of 3 classes in" in done.stdout
    written = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert written["class_names"] == str(tmp_path / "names.txt")
    state = json.loads((tmp_path / "run/checkpoints/best/state.json").read_text())
    assert state["class_names"] == ["emu", "dog", "cat"]


def test_fine_tuning_on_classes_of_which_some_are_known(tmp_path: Path, image_folder: Path, vitcli):
    keys = options(TINY_VIT | {"epoch_size": 1, "data_dir": image_folder})
    assert vitcli("train", *keys, "--run_dir", "first").returncode == 0
    for split in ("train", "val"):
        (image_folder / split / "cat").rename(image_folder / split / "emu")
    done = vitcli("train", *keys, "--ckpt_path", "first", "--run_dir", "second")
    assert done.returncode == 0, done.stderr
    assert "2 loaded in part (head.weight, head.bias)" in done.stdout
    assert "head: 1 of 2 classes start from the file's rows of that name; 1 start from random values" in done.stdout
    for split in ("train", "val"):
        (image_folder / split / "dog").rename(image_folder / split / "fox")
    done = vitcli("train", *keys, "--ckpt_path", "first", "--run_dir", "third")
    assert "the file has 2 classes, and none of them is one of the 2 of the data" in done.stdout
