"""What a user says of a network and its images reaches it, in every command."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vitcli
from tests.support.tensors import same
from vitcli.commands.embed import embed
from vitcli.commands.predict import predict
from vitcli.deploy.artifact import open_artifact
from vitcli.deploy.plan import ExportPlan
from vitcli.networks.opened import open_network

RAW, AVERAGE = 1, 2


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = vitcli.create_model("vit_ti_patch16", img_size=32, depth=1, num_classes=10).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file with raw weights and their average."""
    path = tmp_path / "w.pth"
    torch.save({"model": network(RAW).state_dict(), "model_ema": network(AVERAGE).state_dict()}, path)
    return str(path)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "pictures" / "a.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return path


def recipe(**words: Any) -> vitcli.Recipe:
    return vitcli.load_recipe(model="vit_ti_patch16", depth=1, num_heads=3, image_resize=32, crop_pct=1.0, **words)


@torch.no_grad()
def expected(seed: int, picture: Path, mean: float) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)[None] / 255
    return network(seed)((pixels - mean) / 0.25)[0].softmax(-1)


@pytest.mark.parametrize(("use_ema", "seed"), [(None, AVERAGE), (True, AVERAGE), (False, RAW)])
@pytest.mark.parametrize("mean", [0.1, 0.5])
def test_predict(weights: str, picture: Path, capsys, use_ema, seed, mean):
    predict(weights, [str(picture)], recipe=recipe(mean=[mean], std=[0.25], use_ema=use_ema), top=1)
    best = expected(seed, picture, mean).max()
    assert f"{100 * best:.2f} %" in capsys.readouterr().out


@pytest.mark.parametrize(("use_ema", "seed"), [(None, AVERAGE), (False, RAW)])
def test_export(weights: str, picture: Path, tmp_path: Path, capsys, use_ema, seed):
    said = recipe(mean=[0.1], std=[0.25], use_ema=use_ema)
    artifact = vitcli.export(weights, tmp_path / "out", ExportPlan("onnx"), recipe=said)
    assert open_artifact(artifact.folder).preprocessing.mean == (0.1,)
    capsys.readouterr()
    predict(str(artifact.folder), [str(picture)], top=1)
    assert f"{100 * expected(seed, picture, 0.1).max():.2f} %" in capsys.readouterr().out


@pytest.mark.parametrize(("use_ema", "seed"), [(None, AVERAGE), (False, RAW)])
def test_embed(weights: str, picture: Path, tmp_path: Path, use_ema, seed):
    embed(weights, picture.parent, tmp_path / "f.npz", recipe=recipe(mean=[0.1], std=[0.25], use_ema=use_ema))
    pixels = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)[None] / 255
    with np.load(tmp_path / "f.npz") as found, torch.no_grad():
        latent = network(seed).latent((pixels - 0.1) / 0.25)
        np.testing.assert_allclose(found["features"], latent, atol=1e-4)


@pytest.mark.parametrize(("use_ema", "seed"), [(None, AVERAGE), (False, RAW)])
def test_train(weights: str, tmp_path: Path, use_ema, seed):
    """Steps so small that the weights stay what they were."""
    words: dict[str, Any] = {"lr": 1e-12, "weight_decay": 0, "warmup_epochs": 0, "epoch_size": 1, "ema": False}
    words |= {"dataset": "digits", "num_samples": 8, "batch_size": 8, "num_parallel_workers": 0, "device": "cpu"}
    vitcli.train(recipe(**words, ckpt_path=weights, use_ema=use_ema, run_dir=tmp_path / "run"))
    found = load_file(tmp_path / "run/checkpoints/best/model.safetensors")
    tensors = network(seed).state_dict()
    assert all(torch.allclose(found[name], tensors[name], atol=1e-6) for name in tensors)
    assert not same(network(RAW).state_dict(), network(AVERAGE).state_dict())


def test_what_is_assumed_is_said(weights: str):
    for words in ({}, {"mean": [0.1], "std": [0.2]}, {"interpolation": "bilinear"}):
        said = vitcli.load_recipe(model="vit_ti_patch16", depth=1, num_heads=3, image_resize=32, **words)
        notes = open_network(weights, recipe=said).notes
        (note,) = [note for note in notes if "the preprocessing of the weights is not known" in note]
        assert all((f"{name} " in note.split("assumed: ")[1]) != (name in words) for name in ("mean", "interpolation"))
