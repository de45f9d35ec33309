"""`vitcli export` on real files: what is written, what is refused, and that a refusal leaves nothing behind."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from tests.deploy.conftest import stir
from vitcli.cli import main
from vitcli.commands.export import ExportPlan, export, export_fused
from vitcli.commands.train import train
from vitcli.deploy.artifact import open_artifact
from vitcli.errors import DataError, UsageError, VitcliError, WeightsError
from vitcli.models.registry import create_model
from vitcli.networks.opened import open_model
from vitcli.recipe.load import load_recipe
from vitcli.weights.read import PACKED

NAMES = ["ant", "bee", "wasp"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 4)):
        for name in NAMES:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((40, 36)).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small FastViT as `vitcli weights convert` would write it."""
    torch.manual_seed(0)
    model = stir(create_model("fastvit_t8", num_classes=3, layer_scale_init=0.1))
    file = tmp_path_factory.mktemp("weights") / "wings.safetensors"
    recipe = {"model": "fastvit_t8", "image_resize": 32, "crop_pct": 0.9, "interpolation": "bilinear", "in_channels": 3}
    facts = {"recipe": recipe | {"mean": [0.5] * 3, "std": [0.25] * 3}, "class_names": NAMES}
    save_file(model.state_dict(), file, metadata={PACKED: json.dumps(facts)})
    return file


@pytest.mark.slow
def test_an_artifact_and_its_card(weights: Path, data_dir: Path, tmp_path: Path, capsys: Any):
    out = tmp_path / "out"
    export(weights, out, ExportPlan("onnx", data_dir=data_dir))
    artifact = open_artifact(out)
    assert artifact.class_names == NAMES
    assert artifact.facts["gate"]["real"]["num_images"] == 12
    assert artifact.facts["gate"]["real"]["top1_agreement"] == 100
    assert artifact.facts["gate"]["made_up"]["max_difference"] < 1e-4
    assert artifact.facts["source"]["sha256"]
    assert (artifact.preprocessing.interpolation, artifact.preprocessing.crop_pct) == ("bilinear", 0.9)
    card = (out / "README.md").read_text()
    assert "| 12 real |" in card
    assert "ant, bee, wasp" in card
    assert "Shorter side to 35 px (bilinear" in card
    assert "model: fastvit_t8" in (out / "recipe.yaml").read_text().replace('"', "")
    said = capsys.readouterr().out
    assert "compared 12 real images" in said
    assert f"next: vitcli predict {out}" in said

    with pytest.raises(UsageError) as error:
        export(weights, out, ExportPlan("onnx"))
    assert "nothing is overwritten" in str(error.value)


@pytest.mark.slow
def test_int8_reports_layers_and_keeps_the_first_and_last_in_float(weights: Path, data_dir: Path, tmp_path: Path):
    export(
        weights,
        tmp_path / "out",
        ExportPlan("openvino", "int8", data_dir=data_dir, input="normalized", batch=4, accept=True),
    )
    artifact = open_artifact(tmp_path / "out")
    found = artifact.facts["quantization"]
    assert found["split"] == "train"
    assert found["num_images"] == 15
    assert found["kept"][:2] == ["stem.0.reparam_conv", "head.fc"]
    assert {"final_conv.se.fc1", "final_conv.se.fc2"} <= set(found["kept"])
    assert "stages.0.blocks.0.mlp.conv.conv" in found["kept"]  # depthwise
    assert "stages.0.blocks.0.mlp.fc1" not in found["kept"]
    assert set(found["layer_errors"]).isdisjoint(found["kept"])
    assert len(found["layer_errors"]) == 2 * 10 + 3 + 1  # ten blocks, three halvings, the stem's last
    errors = list(found["layer_errors"].values())
    assert errors == sorted(errors, reverse=True)
    assert found["tried"][0]["num_float"] == 0
    assert (artifact.takes_pixels, artifact.batch) == (False, 4)  # 15 images were not 4 * n
    assert artifact.facts["output"] == "logits"


@pytest.mark.slow
def test_out_of_tolerance_is_refused_and_accept_records_it(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("vitcli.deploy.gate.MAX_ERROR", {"bf16": 1e-9})  # no half-precision network meets it
    with pytest.raises(UsageError) as error:
        export(weights, tmp_path / "out", ExportPlan("torch_export", "bf16"))
    assert "out of tolerance: logits differ by" in str(error.value)
    assert error.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []
    export(weights, tmp_path / "out", ExportPlan("torch_export", "bf16", accept=True))
    assert "Out of tolerance, exported with --accept" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("fold", ["standard", "full"])
def test_a_fused_file_computes_the_same(fold: Any, weights: Path, tmp_path: Path):
    export_fused(weights, tmp_path / "fused.safetensors", fold=fold)
    fused, source = open_model(tmp_path / "fused.safetensors"), open_model(weights)
    assert fused.class_names == NAMES
    assert fused.recipe.augmentation == source.recipe.augmentation
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(fused.model(images), source.model(images), atol=1e-5, rtol=1e-4)
    names = load_file(tmp_path / "fused.safetensors")
    assert any(".bn." in name for name in names) == (fold == "standard")
    assert "stem.0.reparam_conv.weight" in names


def test_a_standard_fused_file_is_timms(weights: Path, tmp_path: Path):
    import timm
    from timm.utils.model import reparameterize_model

    export_fused(weights, tmp_path / "fused.safetensors", fold="standard")
    theirs: nn.Module = reparameterize_model(timm.create_model("fastvit_t8", num_classes=3).eval())
    theirs.load_state_dict(load_file(tmp_path / "fused.safetensors"), strict=True)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), open_model(weights).model(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (ExportPlan("onnx", "bf16"), "the format onnx has no bf16"),
        (ExportPlan("onxx"), "there is no format 'onxx'"),
        (ExportPlan("executorch", batch=4), "takes 1 image at a time"),
    ],
)
def test_impossible_options_are_refused_before_any_work(plan: ExportPlan, says: str, tmp_path: Path):
    with pytest.raises(UsageError) as error:
        export(tmp_path / "no such weights", tmp_path / "out", plan)
    assert says in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_int8_without_images(weights: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="int8 needs images"):
        export(weights, tmp_path / "out", ExportPlan("openvino", "int8"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def run_dir(data_dir: Path, tmp_path: Path) -> Path:
    """Of a small ViT that has seen a copy of `data_dir`, with an unreadable image, for one epoch."""
    shutil.copytree(data_dir, tmp_path / "photos")
    (tmp_path / "photos" / "train" / "ant" / "0.png").write_bytes(b"no image")
    keys = {"model": "vit_ti_patch16", "depth": 1, "image_resize": 32, "epoch_size": 1, "batch_size": 5, "lr": 1e-3}
    keys |= {"on_bad_image": "skip", "max_bad_ratio": 0.5, "num_parallel_workers": 0, "warmup_epochs": 0}
    train(load_recipe(None, data_dir=tmp_path / "photos", run_dir=tmp_path / "run", **keys))
    return tmp_path / "run"


@pytest.mark.slow
def test_a_run_knows_its_images(run_dir: Path, tmp_path: Path, capsys: Any):
    """They are those of the gate; an unreadable one is left out as in training; no path of this machine is written."""
    (tmp_path / "photos" / "val" / "bee" / "1.png").write_bytes(b"no image")
    export(run_dir, tmp_path / "out", ExportPlan("onnx"))
    said = capsys.readouterr().out
    assert "compared on the run's own validation images" in said
    assert "one image could not be read, and left out" in said
    facts = open_artifact(tmp_path / "out").facts
    assert facts["gate"]["real"]["num_images"] == 11
    assert facts["source"]["weights"].startswith("run/checkpoints/step-")
    for file in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name

    shutil.rmtree(tmp_path / "photos")
    export(run_dir, tmp_path / "again", ExportPlan("onnx"))
    said = capsys.readouterr().out
    assert "note: the data of the run" in said
    assert "compared on made-up images only" in said
    with pytest.raises(VitcliError, match="photos"):
        export(run_dir, tmp_path / "int8", ExportPlan("openvino", "int8"))


def test_bad_sources(weights: Path, data_dir: Path, tmp_path: Path):
    with pytest.raises(DataError):
        export(tmp_path / "nothing.safetensors", tmp_path / "out", ExportPlan("onnx"))
    save_file({"a": torch.zeros(2)}, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError) as error:
        export(tmp_path / "odd.safetensors", tmp_path / "out", ExportPlan("onnx"))
    assert "fits no model of the registry" in str(error.value)
    (data_dir / "val" / "hornet").mkdir()
    Image.new("RGB", (9, 9)).save(data_dir / "val" / "hornet" / "0.png")
    with pytest.raises(DataError) as other_labels:
        export(weights, tmp_path / "out", ExportPlan("onnx", data_dir=data_dir))
    assert "hornet" in str(other_labels.value)
    assert not (tmp_path / "out").exists()
    for file in (data_dir / "val" / "hornet").iterdir():
        file.unlink()
    (data_dir / "val" / "hornet").rmdir()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--to", "fused", "--precision", "fp32", "--num_images", "9"], "--precision, --num_images has no effect"),
        (["--to", "onnx", "--fold", "full"], "--fold has no effect with --to onnx"),
    ],
)
def test_an_option_without_effect_is_refused(options: list[str], says: str, tmp_path: Path, capsys: Any):
    with pytest.raises(SystemExit) as ended:
        main(["export", "no such weights", *options, "-o", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
