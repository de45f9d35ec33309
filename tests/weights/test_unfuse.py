"""Files of fused weights, as timm and Apple write them, become files that train; others are refused with a reason."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.utils.model import reparameterize_model

import vitcli
from tests.models.oracle import images, pair
from tests.models.vit_oracles import ours, pictures
from tests.support.tensors import randomized
from vitcli.cli import main
from vitcli.commands import weights as commands
from vitcli.errors import UsageError, WeightsError
from vitcli.layers.reparam import reparameterize
from vitcli.models.fastvit_keys import to_apple
from vitcli.models.registry import create_model
from vitcli.weights.convert import convert_weights
from vitcli.weights.fit import find_fit, fold_of
from vitcli.weights.load import load_weights
from vitcli.weights.preprocessing import preprocessing_of
from vitcli.weights.read import Weights, read_weights
from vitcli.weights.unfuse import made_up_images, unfuse_weights, write_unfused

FACTS = {"class_names": list("abcdefghij"), "preprocessing": {"mean": [0.4], "std": [0.2], "crop_pct": 0.8}}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few images, and few models that a file is compared with."""
    monkeypatch.setattr(commands, "NUM_MADE_UP", 2)
    monkeypatch.setattr(commands, "NUM_REAL", 2)
    monkeypatch.setattr("vitcli.weights.fit.list_models", lambda: ["fastvit_s12", "fastvit_sa12"])


def test_timms_file_by_the_command(tmp_path: Path, image_folder: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, theirs = pair("fastvit_s12")
    theirs = reparameterize_model(theirs)
    packed = {"vitcli": json.dumps(FACTS)}
    save_file({name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}, "fused.safetensors", packed)
    model = create_model("fastvit_s12", num_classes=10).eval()
    with pytest.raises(WeightsError, match="is fused") as caught:
        load_weights(model, "fused.safetensors")
    assert "vitcli weights unfuse fused.safetensors -o FILE" in caught.value.help

    def run(*words: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["weights", "unfuse", "fused.safetensors", "-o", "out.safetensors", *words])
        return ended.value.code

    assert run("--data_dir", str(image_folder)) == 0
    printed = capsys.readouterr().out
    assert "wrote out.safetensors: fastvit_s12 in training form" in printed
    assert "note" not in printed
    written = read_weights("out.safetensors")
    load_weights(model, written)
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), theirs(x), atol=1e-5, rtol=0)
    assert written.meta["model"] == "fastvit_s12"
    assert written.meta["class_names"] == FACTS["class_names"]
    assert preprocessing_of(written) == {"mean": (0.4,), "std": (0.2,), "crop_pct": 0.8}

    assert run() == 2
    assert "out.safetensors exists" in capsys.readouterr().err
    Path("out.safetensors").unlink()
    monkeypatch.setattr(commands, "write_unfused", lambda unfused, images, out: len(next(images)))
    assert run() == 0
    assert "real ones are better: --data_dir DIR" in capsys.readouterr().out


def test_apples_names_a_full_fold_gray_images_and_no_head(tmp_path):
    source = create_model("fastvit_sa12", num_classes=0, in_chans=1).eval()
    tensors = to_apple(reparameterize(source, fold="full").state_dict())
    unfused = unfuse_weights(Weights(tensors))
    write_unfused(unfused, [images(2, 1, 64, 64)], tmp_path / "w.safetensors")
    model = create_model("fastvit_sa12", num_classes=0, in_chans=1).eval()
    load_weights(model, tmp_path / "w.safetensors")
    x = images(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), source(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"qkv_bias": False, "layer_scale_init": 1.0}, {"patch_norm": True}])
def test_a_vit(tmp_path, options):
    source = randomized(ours(**options))
    folded = Weights(reparameterize(source, fold="full").state_dict(), {"options": {"num_heads": 2}}, "w.pth")
    with pytest.raises(WeightsError, match="is fused"):
        load_weights(ours(**options), folded)
    unfused = unfuse_weights(folded)
    assert not unfused.needs_images
    write_unfused(unfused, [], tmp_path / "w.safetensors")
    written = read_weights(tmp_path / "w.safetensors")
    fit = find_fit(written)
    assert fit
    assert fit.options["num_heads"] == 2
    model = ours(**{key: value for key, value in options.items() if key == "patch_norm"})
    load_weights(model, written)
    with torch.no_grad():
        torch.testing.assert_close(model(pictures()), source(pictures()), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_unfused_is_refused(tmp_path):
    model = create_model("fastvit_sa12", num_classes=3)
    fused = reparameterize(model).state_dict()
    with pytest.raises(WeightsError, match="is not fused"):
        unfuse_weights(Weights(model.state_dict()))
    with pytest.raises(WeightsError, match="fits no model"):
        unfuse_weights(Weights({name: tensor for name, tensor in fused.items() if "stages.3" not in name}))
    with pytest.raises(UsageError, match="takes a file that ends in"):
        commands.unfuse("nowhere.pth", tmp_path / "out.pth")
    fused["stem.0.reparam_conv.weight"][0] = float("nan")
    with pytest.raises(WeightsError, match="logits of the training form differ"):
        write_unfused(unfuse_weights(Weights(fused)), [images(1, 3, 64, 64)], tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_form_is_told_by_the_names(tmp_path):
    """Fully folded files are found, stay among ourselves, and load into the same form only."""
    vit, fastvit = randomized(ours()), create_model("fastvit_sa12", num_classes=3)
    for model in (vit, fastvit):
        full = reparameterize(model, fold="full")
        assert fold_of(model.state_dict()) is None
        assert fold_of(full.state_dict()) == "full"
        weights = Weights(full.state_dict(), source="w.pth")
        assert find_fit(weights)
        for to in ("timm", "apple"):
            with pytest.raises(WeightsError, match=r"is fused \(fold full\)|this is a ViT"):
                convert_weights(weights, to, tmp_path / ("w" if to == "timm" else "w.pth"))
        assert load_weights(full, weights).missing == []
    assert fold_of(create_model("fvit").state_dict()) is None
    with pytest.raises(WeightsError, match="fold 'standard', the model with 'full'"):
        load_weights(full, Weights(reparameterize(fastvit).state_dict()))


def test_a_folded_vit_is_validated(tmp_path: Path, image_folder: Path):
    model = randomized(ours(num_classes=2))
    keys = {"model": "vit_b_patch16", "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "patch_size": 8}
    recipe = {**keys, "image_resize": 32, "data_dir": image_folder, "batch_size": 12, "num_parallel_workers": 0}
    scores = []
    for name, form in ("plain.pth", model), ("full.pth", reparameterize(model, fold="full")):
        torch.save(form.state_dict(), tmp_path / name)
        scores.append(vitcli.validate(vitcli.load_recipe(**recipe, ckpt_path=tmp_path / name))["nll"])
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)


def test_made_up_images_look_like_normalized_ones():
    """Mean and variance of 0 and 1, four times the energy in each octave lower down, colors that go together."""
    x = torch.cat(list(made_up_images(20, in_chans=3, img_size=128)))
    assert x.shape == (20, 3, 128, 128)
    assert abs(x.mean()) < 0.3
    assert abs(x.std() - 1) < 0.2
    assert torch.corrcoef(x.transpose(0, 1).flatten(1)).min() > 0.8
    power = torch.fft.fft2(x).abs().square().mean((0, 1))[0]
    assert 3 < power[4:8].mean() / power[8:16].mean() < 5
