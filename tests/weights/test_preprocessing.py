"""What weights say of the images they want, in everybody's words; the recipe's file and the command line come first."""

import json
import re

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import VisionTransformer as TorchvisionViT
from transformers import BitImageProcessorPil, DeiTImageProcessorPil

from tests.models.vit_oracles import hf_vit, ours, timm_vit, torchvision_vit
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.mixing import Normalizer
from vitcli.data.transforms import to_uint8_tensor
from vitcli.errors import WeightsError
from vitcli.models.vit_google import to_google
from vitcli.networks.precedence import adopt_of_run, adopt_preprocessing
from vitcli.recipe.load import load_recipe
from vitcli.recipe.schema import Augmentation
from vitcli.weights.preprocessing import PROCESSORS, of_processor, preprocessing_of
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
            {
                "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "crop_pct": 1.0,
                "crop_mode": "squash",
            },
        ),
        (
            {
                "do_center_crop": True, "size": {"height": 256, "width": 256}, "image_mean": [0.1] * 3,
                "crop_size": {"height": 224, "width": 224}, "image_std": [0.2] * 3, "resample": 3,
            },
            {
                "mean": (0.1,) * 3, "std": (0.2,) * 3, "interpolation": "bicubic", "crop_pct": 0.875,
                "crop_mode": "squash",
            },
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


PHOTO = Image.effect_noise((150, 97), 90).convert("RGB").resize((300, 194), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "options",
    [
        {"size": {"height": 32, "width": 32}},
        {"size": {"height": 40, "width": 24}},
        {"size": {"height": 32, "width": 32}, "do_rescale": False, "do_normalize": False},
        {"size": {"height": 32, "width": 32}, "do_normalize": False},
        {
            "size": {"height": 32, "width": 32},
            "rescale_factor": 1 / 127.5,
            "image_mean": [1, 1, 1],
            "image_std": [1, 1, 1],
        },
        {"size": {"height": 48, "width": 48}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
        {"size": {"shortest_edge": 42}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
    ],
    ids=str,
)
@pytest.mark.parametrize("resample", [2, 3])
def test_the_same_numbers_as_transformers(tmp_path, options, resample):
    """Its processor resizes with Pillow too. A crop that cannot be central is half a pixel further up."""
    cls = BitImageProcessorPil if "shortest_edge" in options["size"] else DeiTImageProcessorPil
    crops = {"do_center_crop": False} if "do_center_crop" not in options else {}
    processor = cls(**options, **crops, resample=resample)
    hf_vit().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found, size = of_processor(json.loads((tmp_path / "preprocessor_config.json").read_text()), "here")
    aug = Augmentation(**found, image_resize=size)
    pixels = to_uint8_tensor(build_eval_transform(aug)(PHOTO))[None]
    expected = processor(PHOTO, return_tensors="pt").pixel_values.float()
    torch.testing.assert_close(Normalizer(aug.mean, aug.std, 3)(pixels), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_a_file_does_not_state_is_the_default_of_its_class(name):
    theirs = json.loads(getattr(transformers, f"{name}ImageProcessorPil")().to_json_string())
    assert of_processor({"image_processor_type": f"{name}ImageProcessor"}, "here") == of_processor(theirs, "here")
    assert PROCESSORS[name]["default_to_square"] == getattr(transformers, f"{name}ImageProcessorPil").default_to_square


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"do_resize": False}, "do_resize: False"),
        ({"resample": 5}, "resample: 5; vitcli has nearest"),
        ({"size": {"longest_edge": 9}}, "size: {'longest_edge': 9}"),
        ({"size": {"shortest_edge": 9, "longest_edge": 20}, "do_center_crop": True}, "this is not understood"),
        ({"size": 224, "default_to_square": False}, "without a crop; images would have different sizes"),
        ({"size": {"shortest_edge": 224}}, "without a crop; images would have different sizes"),
        ({"do_center_crop": True, "size": 224, "crop_size": 256}, "the crop has another shape, or is larger"),
        ({"do_pad": True}, "do_pad: True"),
        ({"image_processor_type": "ConvNextImageProcessor"}, "knows those of ViT, DeiT, Bit, CLIP"),
        ({"new": 1}, "new: 1; this key is not known"),
        ({"rescale_factor": "x"}, "rescale_factor: 'x'"),
        ({"image_std": [0, 1, 1]}, "image_std"),
        ({"image_mean": "imagenet"}, "image_mean: 'imagenet'"),
    ],
    ids=str,
)
def test_what_a_processor_says_that_is_refused(given, message):
    with pytest.raises(WeightsError, match=re.escape(message)):
        preprocessing_of(Weights(hf_vit().state_dict(), {"preprocessor_config": given}, "folder"))


@pytest.mark.parametrize(("key", "value"), [("interpolation", "hamming"), ("crop_mode", "tile")])
def test_what_timm_says_that_is_refused(key, value):
    config = {"architecture": "vit_base_patch16_224", "mean": [0.5], "std": [0.5], key: value}
    with pytest.raises(WeightsError, match=f"{key}: '{value}'"):
        preprocessing_of(Weights(timm_vit().state_dict(), {"config": config}, "folder"))


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
    (note,) = adopt_preprocessing(load_recipe(mean=[0.5]), unknown)[1]
    assert note == (
        "the preprocessing of the weights is not known; assumed: "
        "std [0.229, 0.224, 0.225], interpolation bicubic, crop_pct 0.875, crop_mode center"
    )


def test_what_was_set_is_kept(tmp_path):
    (tmp_path / "r.yaml").write_text("mean: [0.485, 0.456, 0.406]\nstd: [0.3, 0.3, 0.3]\n")
    recipe, notes = adopt_preprocessing(load_recipe(tmp_path / "r.yaml", {"crop_pct": "1.0"}), GOOGLE)
    assert notes == []
    assert recipe.augmentation.std == (0.3, 0.3, 0.3)
    assert recipe.augmentation.crop_pct == 1.0
    (tmp_path / "mindcv.yaml").write_text("mode: 0\nmodel: vit_b_patch16\n")  # MindCV's defaults are nobody's wish
    assert adopt_preprocessing(load_recipe(tmp_path / "mindcv.yaml"), GOOGLE)[0].augmentation.interpolation == "bicubic"


def test_a_continued_run_keeps_what_it_adopted():
    began, _ = adopt_preprocessing(load_recipe(ckpt_path="w"), GOOGLE)
    assert adopt_of_run(load_recipe(ckpt_path="w"), began.flat()).flat() == began.flat()
    for other in (load_recipe(ckpt_path="w", mean=[0.1, 0.1, 0.1]), load_recipe()):  # and resuming is refused
        assert adopt_of_run(other, began.flat()).augmentation.mean == other.augmentation.mean
    seen = load_recipe().changed("the images", pixel_range=[0, 65535])
    assert adopt_of_run(load_recipe(), seen.flat()).flat() == seen.flat()


@pytest.mark.parametrize("in_channels", [1, 6])
def test_a_training_on_other_channels_takes_the_average_of_the_weights_mean(in_channels):
    weights = Weights({}, {"preprocessing": {"mean": [0.1, 0.2, 0.6], "std": [0.5, 0.5, 0.2]}}, "w")
    recipe, notes = adopt_preprocessing(load_recipe(in_channels=in_channels), weights)
    assert recipe.augmentation.mean == pytest.approx((0.3,))
    assert recipe.augmentation.std == pytest.approx((0.4,))
    assert notes[0].startswith("preprocessing of the weights: mean [0.3")
