"""`vitcli embed`: every image has its row, whatever the layout of the folder; files are read without pickle."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.functional import to_tensor

from vitcli.commands.embed import embed
from vitcli.errors import DataError, UsageError


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3).eval()


@pytest.fixture
def weights(network: torch.nn.Module, tmp_path: Path) -> Path:
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    facts = {"architecture": "vit_tiny_patch16_224", "num_classes": 3}
    facts["pretrained_cfg"] = {
        "input_size": [3, 32, 32], "crop_pct": 1.0, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.25] * 3
    }  # fmt: skip
    folder = tmp_path / "hub"
    folder.mkdir()
    (tmp_path / "vit.safetensors").rename(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images of 32 x 32 pixels in two folders, one of them deeper, one with a name that is not UTF-8."""
    generator = np.random.default_rng(0)
    for name in ("b/1.png", "b/2.png", "a c/1.png", "a c/deep/ü.png", "b/0.png", "b/9.jpeg", "a c/z\udcff.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, "JPEG" if path.suffix == ".jpeg" else "PNG")
    return tmp_path / "photos"


NAMES = ["a c/1.png", "a c/deep/ü.png", "a c/z\\xff.png", "b/0.png", "b/1.png", "b/2.png", "b/9.jpeg"]
LABELS = [0, 0, 0, 1, 1, 1, 1]


@torch.no_grad()
def expected(network: torch.nn.Module, photos: Path) -> np.ndarray:
    """By timm and torchvision."""
    paths = [photos / name.replace("\\xff", "\udcff") for name in NAMES]
    images = torch.stack([to_tensor(Image.open(path).convert("RGB")) for path in paths])
    tokens = network.forward_features((images - 0.5) / 0.25)
    return network.forward_head(tokens, pre_logits=True).numpy()


def test_npz(network: torch.nn.Module, weights: Path, photos: Path, tmp_path: Path):
    embed(str(weights), photos, tmp_path / "out.npz", batch_size=3)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert file["names"].tolist() == NAMES
        assert file["labels"].tolist() == LABELS
        assert file["class_names"].tolist() == ["a c", "b"]
        assert file["features"].dtype == np.float32
        np.testing.assert_allclose(file["features"], expected(network, photos), rtol=1e-4, atol=1e-5)
        origin = json.loads(str(file["provenance"]))
    assert origin["model"] == "vit_ti_patch16"
    assert origin["preprocessing"]["image_resize"] == 32
    assert origin["preprocessing"]["mean"] == [0.5] * 3
    assert origin["weights"] == "model.safetensors", "no path of this machine"
    assert set(origin["versions"]) >= {"torch"}


def test_parquet(network: torch.nn.Module, weights: Path, photos: Path, tmp_path: Path):
    pq = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "out.parquet").write_text("is replaced")
    embed(str(weights), photos, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["name"].to_pylist() == NAMES
    assert table["label"].to_pylist() == LABELS
    assert table["class_name"].to_pylist() == ["a c"] * 3 + ["b"] * 4
    np.testing.assert_allclose(table["features"].to_pylist(), expected(network, photos), rtol=1e-4, atol=1e-5)
    assert json.loads(table.schema.metadata[b"vitcli"])["model"] == "vit_ti_patch16"
    assert not list(tmp_path.glob(".out*"))


def test_any_folder_has_no_labels(weights: Path, photos: Path, tmp_path: Path, capsys):
    shutil.copy(photos / "b/1.png", photos / "extra.png")
    embed(str(weights), photos, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["features", "names", "provenance"]
        assert file["names"].tolist() == [*NAMES, "extra.png"]
        np.testing.assert_allclose(file["features"][NAMES.index("b/1.png")], file["features"][-1], rtol=1e-5, atol=1e-6)
    assert "none" in capsys.readouterr().out


def test_refusals(weights: Path, photos: Path, tmp_path: Path, monkeypatch):
    for out, words in ((tmp_path / "out.csv", "ends in .npz or .parquet"), (tmp_path / "no/out.npz", "no folder")):
        with pytest.raises(UsageError) as caught:
            embed(str(weights), photos, out)
        assert words in f"{caught.value}"
    with pytest.raises(UsageError, match="not a folder"):
        embed(str(weights), photos / "b/1.png", tmp_path / "out.npz")
    (photos / "b/broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        embed(str(weights), photos, tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError) as caught:
        embed(str(weights), photos, tmp_path / "out.parquet")
    assert "vitcli[parquet]" in f"{caught.value}"


@pytest.mark.slow
def test_the_command(vitcli, weights: Path, photos: Path, tmp_path: Path):
    done = vitcli("embed", weights, photos, "-o", "out.npz", "--batch_size", 2, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "2 folders: a c, b" in done.stdout
    assert (tmp_path / "out.npz").is_file()
