"""Images of more than 8 bits, and of six channels, from training to an exported network."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import vitcli
from tests.support.images import photo
from vitcli.commands.predict import predict
from vitcli.deploy.artifact import open_artifact
from vitcli.deploy.plan import ExportPlan
from vitcli.errors import DataError
from vitcli.networks.opened import open_weights
from vitcli.weights.convert import convert_weights

Write = Callable[[Path, np.ndarray, bool], None]  #: where, a gray photograph 0..1, whether it is of the bright class


def microscope(path: Path, gray: np.ndarray, is_bright: bool) -> None:
    """12 bits in a file of 16."""
    Image.fromarray((gray * 1500 + 2500 * is_bright).astype(np.uint16)).save(path.with_suffix(".png"))


def computed_tomography(path: Path, gray: np.ndarray, is_bright: bool) -> None:
    """Signed numbers."""
    tifffile.imwrite(path.with_suffix(".tif"), (gray * 1000 - 1000 + 2000 * is_bright).astype(np.int16))


def satellite(path: Path, gray: np.ndarray, is_bright: bool) -> None:
    """Six channels, of which the last tells the classes apart."""
    np.save(path.with_suffix(".npy"), np.stack([gray * 250] * 5 + [gray * 40 + 200 * is_bright], -1).astype(np.uint8))


#: what writes the images -> the recipe keys that they need, and what is said without
KINDS: dict[Write, tuple[dict[str, Any], str]] = {
    microscope: ({"pixel_range": [0, 4095], "in_channels": 1}, "values from 0 to 4000"),
    computed_tomography: ({"pixel_range": [-1024, 3071]}, "values from -1000 to 2000"),
    satellite: ({"in_channels": 6}, "has 6 channels, the network takes 3"),
}


@pytest.mark.parametrize("write", KINDS, ids=lambda kind: kind.__name__)
def test_two_classes_that_differ_clearly_are_told_apart(tmp_path: Path, monkeypatch, capsys, write: Write):
    monkeypatch.chdir(tmp_path)
    for number in range(40):
        name, split = ("bright", "dark")[number % 2], "val" if number >= 32 else "train"
        folder = Path("data") / split / name
        folder.mkdir(parents=True, exist_ok=True)
        gray = np.asarray(photo(40, 32, number).convert("L"), dtype=float)
        write(folder / f"{number}", (gray - gray.min()) / np.ptp(gray), name == "bright")
    keys, said = KINDS[write]
    recipe: dict[str, Any] = {
        "model": "vit_ti_patch16", "depth": 1, "patch_size": 8, "image_resize": 32, "batch_size": 8, "epoch_size": 4,
        "lr": 1e-3, "warmup_epochs": 0, "data_dir": "data", "num_parallel_workers": 0, "device": "cpu",
    }  # fmt: skip
    with pytest.raises(DataError, match=said):
        vitcli.train(vitcli.load_recipe(**recipe, run_dir="refused"))
    assert not Path("refused").exists()

    vitcli.train(vitcli.load_recipe(**recipe, **keys, run_dir="run"))
    found = vitcli.validate(vitcli.load_recipe(ckpt_path="run", num_parallel_workers=0))
    assert found["top1"] == 100
    artifact = vitcli.export("run", Path("onnx"), ExportPlan("onnx"))
    assert open_artifact(artifact.folder).preprocessing.pixel_range == (
        tuple(keys["pixel_range"]) if "pixel_range" in keys else "auto"
    )
    convert_weights(open_weights("run"), "vitcli", Path("converted.safetensors"))
    for place in ("onnx", "converted.safetensors"):
        other = vitcli.validate(vitcli.load_recipe(ckpt_path=place, data_dir="data", num_parallel_workers=0))
        assert other["nll"] == pytest.approx(found["nll"], abs=1e-5)
    for source in ("run", "onnx"):
        capsys.readouterr()
        predict(source, ["data/val"], top=1)
        lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
        assert len(lines) == 8
        assert all(Path(path).parent.name == name for path, name, _ in lines)


def test_a_set_of_sixteen_bits_says_what_it_takes_them_for(tmp_path: Path, monkeypatch, capsys):
    """Dark images of a set whose others use all bits are read like these."""
    monkeypatch.chdir(tmp_path)
    for number in range(16):
        folder = Path("data") / ("val" if number >= 12 else "train") / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        gray = np.asarray(photo(40, 32, number).convert("L")).astype(np.uint16) * (1 if number < 8 else 257)
        Image.fromarray(gray).save(folder / f"{number}.png")
    small: dict[str, Any] = {"model": "fvit", "depth": 1, "image_resize": 32, "batch_size": 4, "epoch_size": 2}
    vitcli.train(vitcli.load_recipe(**small, data_dir="data", num_parallel_workers=0, run_dir="run"))
    assert "images of more than 8 bits per channel: pixel_range [0, 65535]" in capsys.readouterr().out
    assert "pixel_range: [0.0, 65535.0]" in Path("run/recipe.yaml").read_text()
    shutil.rmtree(Path("run/checkpoints/best").resolve())
    Path("run/checkpoints/best").unlink()
    again = vitcli.load_recipe(**small, data_dir="data", num_parallel_workers=0, run_dir="run", resume="auto")
    assert vitcli.train(again).step == 6
