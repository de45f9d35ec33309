"""What weights say of the images they want, in everybody's words; the recipe's file and the command line come first."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import VisionTransformer as TorchvisionViT

from tests.models.vit_oracles import hf_vit, ours, timm_vit, torchvision_vit
from vitcli.models.vit_google import to_google
from vitcli.networks.precedence import adopt_of_run, adopt_preprocessing
from vitcli.recipe.load import load_recipe
from vitcli.weights.preprocessing import preprocessing_of
from vitcli.weights.read import Weights, read_weights

IMAGENET, HALF = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3)


def by_names(tensors) -> tuple:
    found = preprocessing_of(Weights(tensors))
    assert found is not None
    return (found["mean"], found["std"]), found["interpolation"], found["crop_pct"]


def test_by_the_names_of_tensors():
    assert by_names(torchvision_vit().state_dict()) == (IMAGENET, "bilinear", 0.875)
    assert by_names(to_google(ours().state_dict(), 2)) == (HALF, "bicubic", 0.9)
    assert by_names(timm_vit("deit_base_distilled_patch16_224").state_dict()) == (IMAGENET, "bicubic", 0.9)
    large = {"img_size": 384}  # of the fine-tuned ones: SWAG's, and whole images
    tiny = {"image_size": 384, "patch_size": 16, "num_layers": 1, "num_heads": 1, "hidden_dim": 16, "mlp_dim": 16}
    assert by_names(TorchvisionViT(**tiny).state_dict()) == (IMAGENET, "bicubic", 1.0)
    assert by_names(to_google(ours(**large).state_dict(), 2)) == (HALF, "bicubic", 1.0)
    assert by_names(ours(**large, distilled=True).state_dict()) == (IMAGENET, "bicubic", 1.0)
    for ambiguous in (timm_vit(), hf_vit(), torch.nn.Linear(2, 2)):
        assert preprocessing_of(Weights(ambiguous.state_dict())) is None


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        (
            {"do_resize": True, "size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2},
            {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "crop_pct": 1.0},
        ),
        (
            {
                "do_center_crop": True, "size": {"height": 256, "width": 256}, "image_mean": [0.1] * 3,
                "crop_size": {"height": 224, "width": 224}, "image_std": [0.2] * 3, "resample": 3,
            },
            {"mean": (0.1,) * 3, "std": (0.2,) * 3, "interpolation": "bicubic", "crop_pct": 0.875},
        ),
    ],
)  # fmt: skip
def test_transformers_file(tmp_path, beside, expected):
    hf_vit().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(beside))
    assert preprocessing_of(read_weights(tmp_path)) == expected


@pytest.mark.parametrize("flat", [False, True])
def test_timms_file(tmp_path, flat):
    wanted = {"mean": [0.1] * 3, "std": [0.2] * 3, "interpolation": "bicubic", "crop_pct": 0.95}
    config = {"architecture": "vit_base_patch16_224"} | (wanted if flat else {"pretrained_cfg": wanted})
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(timm_vit().state_dict(), tmp_path / "model.safetensors")
    expected = {"mean": (0.1,) * 3, "std": (0.2,) * 3, "interpolation": "bicubic", "crop_pct": 0.95}
    assert preprocessing_of(read_weights(tmp_path)) == expected


@pytest.mark.parametrize("name", ["config", "preprocessor_config"])
def test_nonsense_tells_nothing(name):
    words = {"mean": "imagenet", "std": "imagenet", "image_mean": 0.5, "image_std": 0.5}
    assert preprocessing_of(Weights(timm_vit().state_dict(), {name: words})) is None


def test_our_checkpoint():
    known = {"mean": [0.3], "std": [0.4], "interpolation": "lanczos", "crop_pct": 0.7, "image_resize": 32}
    weights = Weights(ours().state_dict(), {"preprocessing": known, "recipe": {"mean": [9.0]}})
    assert preprocessing_of(weights) == {"mean": (0.3,), "std": (0.4,), "interpolation": "lanczos", "crop_pct": 0.7}


GOOGLE = Weights(to_google(ours().state_dict(), 2), source="w.npz")


def test_what_is_left_open_is_taken():
    recipe, notes = adopt_preprocessing(load_recipe(), GOOGLE)
    assert recipe.augmentation.mean == (0.5, 0.5, 0.5)
    assert recipe.augmentation.crop_pct == 0.9
    assert recipe.augmentation.interpolation == "bicubic"  # the default already
    assert notes == ["preprocessing of the weights: mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5], crop_pct 0.9"]
    assert adopt_preprocessing(recipe, GOOGLE) == (recipe, [])
    unknown = Weights(timm_vit().state_dict())
    assert adopt_preprocessing(load_recipe(), unknown)[1] == []


def test_what_was_set_is_kept(tmp_path):
    (tmp_path / "r.yaml").write_text("mean: [0.485, 0.456, 0.406]\nstd: [0.3, 0.3, 0.3]\n")
    recipe, notes = adopt_preprocessing(load_recipe(tmp_path / "r.yaml", {"crop_pct": "1.0"}), GOOGLE)
    assert notes == []
    assert recipe.augmentation.std == (0.3, 0.3, 0.3)
    assert recipe.augmentation.crop_pct == 1.0
    (tmp_path / "mindcv.yaml").write_text("mode: 0\nmodel: vit_b_patch16\n")  # MindCV's defaults are nobody's wish
    assert adopt_preprocessing(load_recipe(tmp_path / "mindcv.yaml"), GOOGLE)[0].augmentation.interpolation == "bicubic"


def test_a_continued_run_keeps_what_it_adopted():
    began, _ = adopt_preprocessing(load_recipe(), GOOGLE)
    assert adopt_of_run(load_recipe(), began.flat()).flat() == began.flat()
    other = load_recipe(mean=[0.1, 0.1, 0.1])
    assert adopt_of_run(other, began.flat()).augmentation.mean == (0.1, 0.1, 0.1)  # and resuming is refused
