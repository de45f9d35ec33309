"""Images that are not square, from training through validation and conversion to an exported network."""

from pathlib import Path

import pytest

import vitcli
from tests.support.images import photo, write_images
from vitcli.deploy.plan import ExportPlan
from vitcli.networks.opened import open_weights
from vitcli.weights.convert import convert_weights

VIT = {"model": "vit_ti_patch16", "depth": 1, "patch_size": 8}
FVIT = {"model": "fvit", "depth": 1}


@pytest.mark.parametrize(("model", "crop_mode"), [(VIT, "squash"), (VIT, "border"), (FVIT, "center")], ids=str)
def test_from_training_to_the_exported_network(tmp_path: Path, monkeypatch, model, crop_mode):
    """The same images give the same numbers at each stage: no stage takes another shape or crop."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 8), ("val", 6)):
        for name in ("a", "b"):
            write_images(Path("images") / split / name, count, lambda i, name=name: photo(40, 32, i + 10 * ord(name)))
    keys = {"image_resize": [48, 32], "crop_mode": crop_mode, "crop_pct": 0.8, "batch_size": 8, "epoch_size": 1}
    recipe = vitcli.load_recipe(**model, **keys, data_dir="images", num_parallel_workers=0, run_dir="run")
    vitcli.train(recipe)
    measured = [vitcli.validate(vitcli.load_recipe(ckpt_path="run", num_parallel_workers=0))]
    vitcli.export("run", Path("onnx"), ExportPlan("onnx"))
    places = ["onnx"]
    if model is VIT:
        convert_weights(open_weights("run"), "timm", Path("timm"))
        places.append("timm")
    for place in places:
        data = vitcli.load_recipe(ckpt_path=place, data_dir="images", num_parallel_workers=0)
        measured.append(vitcli.validate(data))
    for other in measured[1:]:
        assert other["nll"] == pytest.approx(measured[0]["nll"], abs=1e-5)
        assert other["top1"] == measured[0]["top1"]
