"""What is written for another project, its own loader takes whole; and it comes back to the last bit."""

import json

import pytest
import timm
import torch
from transformers import (
    AutoImageProcessor,
    DeiTForImageClassificationWithTeacher,
    DeiTModel,
    ViTForImageClassification,
    ViTModel,
)

from tests.models.vit_oracles import hf_vit, lucid_vit, ours, pictures, timm_vit, torchvision_vit
from tests.support.tensors import randomized, same
from tests.weights.test_load import t8
from vitcli.commands.weights import show
from vitcli.errors import UsageError, WeightsError
from vitcli.layers.reparam import reparameterize
from vitcli.models.fastvit_keys import to_apple
from vitcli.models.registry import create_model
from vitcli.models.vit_google import to_google
from vitcli.networks.opened import open_network
from vitcli.weights.convert import convert_weights
from vitcli.weights.fit import find_fit
from vitcli.weights.load import load_weights
from vitcli.weights.preprocessing import preprocessing_of
from vitcli.weights.read import Weights, read_weights

PREPROCESSING = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear", "crop_pct": 0.8}
META = {
    "class_names": ["ant", "bee", "cat", "dog", "emu"], "preprocessing": PREPROCESSING, "recipe": {"num_heads": 2}
}  # fmt: skip


def weights_of(model: torch.nn.Module, **meta) -> Weights:
    return Weights(model.state_dict(), {**META, **meta}, "w.pth")


def logits(model, images):
    with torch.no_grad():
        output = model(images)
    return getattr(output, "logits", output)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_pool": "avg"},
        {"global_pool": "avg", "class_token": True, "qkv_bias": False},
        {"reg_tokens": 3, "layer_scale_init": 1.0},
        {"distilled": True},
        {"distilled": True, "layer_scale_init": 1.0},
        {"num_classes": 0},
        {"in_chans": 1, "img_size": 48},
    ],
)
def test_timm_builds_it_from_the_folder(tmp_path, options):
    source = randomized(ours(**options))
    assert convert_weights(weights_of(source), "timm", tmp_path / "out") == []
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    images = pictures(options.get("in_chans", 3), options.get("img_size", 32))
    torch.testing.assert_close(logits(theirs, images), logits(source, images), atol=1e-5, rtol=1e-5)
    cfg = theirs.pretrained_cfg
    assert tuple(cfg["mean"]) == PREPROCESSING["mean"]
    assert (cfg["crop_pct"], cfg["interpolation"]) == (0.8, "bilinear")
    assert cfg["label_names"] == META["class_names"]
    back = read_weights(tmp_path / "out")
    assert same(read_weights(tmp_path / "out").tensors, source.state_dict())
    assert back.meta["class_names"] == META["class_names"]
    assert preprocessing_of(back) == PREPROCESSING
    before, after = find_fit(weights_of(source)), find_fit(back)
    assert (after.name, after.options) == (before.name, before.options)


def test_transformers_loads_the_folder(tmp_path):
    for name, options, model in (
        ("vit", {}, ViTForImageClassification),
        ("no bias", {"qkv_bias": False}, ViTForImageClassification),
        ("deit", {"distilled": True}, DeiTForImageClassificationWithTeacher),
    ):
        source = randomized(ours(**options))
        assert convert_weights(weights_of(source), "hf", tmp_path / name) == []
        theirs, report = model.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        torch.testing.assert_close(logits(theirs, pictures()), logits(source, pictures()), atol=1e-5, rtol=1e-5)
        assert theirs.config.id2label == dict(enumerate(META["class_names"]))
        back = tmp_path / f"{name}.safetensors"
        convert_weights(read_weights(tmp_path / name), "vitcli", back)
        assert same(read_weights(back).tensors, source.state_dict())
        assert read_weights(back).meta["class_names"] == META["class_names"]
    headless = randomized(ours(num_classes=0, distilled=True))
    convert_weights(weights_of(headless), "hf", tmp_path / "deit headless")
    assert json.loads((tmp_path / "deit headless" / "config.json").read_text())["architectures"] == ["DeiTModel"]
    tokens = DeiTModel.from_pretrained(tmp_path / "deit headless", add_pooling_layer=False)(pictures())[0]
    torch.testing.assert_close(tokens, headless.forward_features(pictures()), atol=1e-5, rtol=1e-5)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "vit")
    assert tuple(processor.image_mean) == PREPROCESSING["mean"]
    assert processor.size["shortest_edge"] == 40
    headless = randomized(ours(num_classes=0, pre_logits=32))
    convert_weights(weights_of(headless), "hf", tmp_path / "headless")
    pooled = ViTModel.from_pretrained(tmp_path / "headless").eval()(pictures()).pooler_output
    torch.testing.assert_close(pooled, headless(pictures()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_torchvision_loads_the_file(tmp_path, name):
    source = randomized(ours(pre_logits=24))
    notes = convert_weights(weights_of(source), "torchvision", tmp_path / name)
    assert len(notes) == (2 if name == "w.pth" else 0)
    assert not notes or "note it: mean [0.1, 0.2, 0.3]" in notes[1]
    read = read_weights(tmp_path / name)
    theirs = torchvision_vit(representation_size=24)
    theirs.load_state_dict(read.tensors, strict=True)
    torch.testing.assert_close(logits(theirs, pictures()), logits(source, pictures()), atol=1e-5, rtol=1e-5)
    assert read.meta.get("class_names") == (None if name == "w.pth" else META["class_names"])


def test_timms_npz_loader_takes_the_file(tmp_path):
    source = randomized(ours())
    convert_weights(weights_of(source), "google", tmp_path / "w.npz")
    theirs = timm_vit()
    theirs.load_pretrained(str(tmp_path / "w.npz"))
    torch.testing.assert_close(logits(theirs, pictures()), logits(source, pictures()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("to", "name", "options"),
    [
        ("timm", "out", {"reg_tokens": 2}),
        ("timm", "out", {"global_pool": "avg"}),
        ("hf", "out", {"distilled": True}),
        ("google", "w.npz", {}),
        ("torchvision", "w.safetensors", {}),
    ],
)
def test_fixed_positions_are_written_out(tmp_path, to, name, options):
    source, recipe = randomized(ours(pos_embed="sincos2d", **options)), {"pos_embed": "sincos2d", "image_resize": 32}
    weights = weights_of(source, recipe=META["recipe"] | recipe)
    assert "pos_embed: sincos2d" in str(find_fit(weights))
    assert "sincos2d" in convert_weights(weights, to, tmp_path / name)[0]
    back = ours(**options)
    load_weights(back, tmp_path / name)
    torch.testing.assert_close(logits(back, pictures()), logits(source, pictures()), atol=1e-6, rtol=1e-6)
    convert_weights(weights, "vitcli", tmp_path / "kept.safetensors")
    assert find_fit(read_weights(tmp_path / "kept.safetensors")) == find_fit(weights)


def test_around_the_world(tmp_path):
    """One model through every project's names, each file read from the one before; bfloat16 stays what it is."""
    source = {name: tensor.bfloat16() for name, tensor in randomized(ours()).state_dict().items()}
    weights = Weights(source, META, "w.pth")
    stops = (
        ("torchvision", "a.safetensors"),
        ("hf", "b"),
        ("google", "c.npz"),
        ("timm", "d"),
        ("vitcli", "e.safetensors"),
    )
    for to, name in stops:
        convert_weights(weights, to, tmp_path / name)
        weights = read_weights(tmp_path / name)
    assert same(read_weights(tmp_path / "e.safetensors").tensors, source)


def test_fastvit(tmp_path):
    source = t8().eval()
    names = [f"class {i}" for i in range(10)]
    weights = Weights(source.state_dict(), {"class_names": names}, "w.pth")
    convert_weights(weights, "apple", tmp_path / "apple.pth.tar")
    assert read_weights(tmp_path / "apple.pth.tar").tensors.keys() == to_apple(source.state_dict()).keys()
    convert_weights(read_weights(tmp_path / "apple.pth.tar"), "timm", tmp_path / "timm")
    assert same(read_weights(tmp_path / "timm").tensors, source.state_dict())
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    torch.testing.assert_close(logits(theirs, pictures(side=64)), logits(source, pictures(side=64)), atol=1e-5, rtol=0)
    fused = reparameterize(source)
    convert_weights(Weights(fused.state_dict()), "vitcli", tmp_path / "fused.safetensors")
    assert same(read_weights(tmp_path / "fused.safetensors").tensors, fused.state_dict())
    for weights, to in ((Weights(fused.state_dict()), "timm"), (Weights(source.state_dict()), "torchvision")):
        with pytest.raises(WeightsError, match=r"fused|has no model"):
            convert_weights(weights, to, tmp_path / ("no" if to == "timm" else "no.pth"))


REFUSED = [
    ("torchvision", {"reg_tokens": 2}, "reg_tokens: 2"),
    ("torchvision", {"distilled": True}, "distilled: True"),
    ("torchvision", {"qkv_bias": False}, "qkv_bias: False"),
    ("torchvision", {"global_pool": "avg", "class_token": True}, "global_pool: avg"),
    ("torchvision", {"num_classes": 0}, "always has a head"),
    ("google", {"layer_scale_init": 1.0}, "has layer_scale_init, which google cannot hold"),
    ("timm", {"distilled": True, "reg_tokens": 2}, "reg_tokens: 2"),
    ("hf", {"pre_logits": 24}, "pre_logits: 24"),
    ("hf", {"reg_tokens": 2}, "reg_tokens: 2"),
    ("timm", {"pre_logits": 24}, "pre_logits: 24"),
    ("timm", {"patch_norm": True}, "patch_norm: True"),
    ("timm", {"head_hidden": 8}, "head_hidden: 8"),
    ("timm", {"fine_tune_from": 3}, "fine_tune_from: 3"),
    ("timm", {"final_norm": False}, "final_norm: False"),
    ("timm", {"pos_embed": "sincos2d"}, "pos_embed"),
    ("timm", {"attn_scale": "learned"}, "attn_scale: learned"),
    ("timm", {"head_dim": 24}, "head_dim: 24"),
    ("apple", {}, "this is a ViT"),
]


@pytest.mark.parametrize(("to", "options", "named"), REFUSED)
def test_what_a_project_cannot_hold_is_refused_by_name(tmp_path, to, options, named):
    out = tmp_path / {"torchvision": "w.pth", "apple": "w.pth", "google": "w.npz"}.get(to, "out")
    with pytest.raises(WeightsError, match=named):
        convert_weights(weights_of(ours(**options)), to, out)
    assert not list(tmp_path.iterdir())
    convert_weights(weights_of(ours(**options)), "vitcli", tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors").tensors.keys() == ours(**options).state_dict().keys()


def test_what_does_not_show_but_is_known(tmp_path):
    """A scale that stands in the recipe only, heads, and the eps."""
    full = weights_of(ours(), recipe={"num_heads": 2, "attn_scale": "full"})
    with pytest.raises(WeightsError, match="attn_scale: full"):
        convert_weights(full, "timm", tmp_path / "out")
    unknown = Weights(ours().state_dict(), {}, "w.pth")
    with pytest.raises(UsageError, match="number of attention heads") as caught:
        convert_weights(unknown, "timm", tmp_path / "out")
    assert "--num_heads" in caught.value.help
    with pytest.raises(UsageError, match="a width of 32 cannot be split into 5 heads"):
        convert_weights(unknown, "timm", tmp_path / "out", num_heads=5)
    with pytest.raises(UsageError, match="has 2 heads"):
        convert_weights(Weights(to_google(ours().state_dict(), 2)), "timm", tmp_path / "out", num_heads=4)
    convert_weights(unknown, "timm", tmp_path / "out", num_heads=4)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_args"]["num_heads"] == 4
    hf_vit(id2label={0: "x"}).save_pretrained(tmp_path / "hf")
    config = tmp_path / "hf" / "config.json"
    config.write_text(config.read_text().replace("1e-06", "1e-12"))
    notes = convert_weights(read_weights(tmp_path / "hf"), "timm", tmp_path / "back")
    assert "1e-12" in notes[0]


@pytest.mark.parametrize(("to", "name"), [("torchvision", "w.pth"), ("google", "w.npz")])
def test_images_that_are_not_square(tmp_path, to, name):
    weights = weights_of(ours(img_size=(32, 48)), recipe={"num_heads": 2, "image_resize": [32, 48]})
    with pytest.raises(WeightsError, match=f"{to} takes square images, not 32 x 48 px"):
        convert_weights(weights, to, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["timm", "hf"])
def test_a_range_of_values_is_not_kept_by_others(tmp_path, to):
    known = PREPROCESSING | {"pixel_range": (0.0, 4095.0)}
    notes = convert_weights(weights_of(ours(), preprocessing=known), to, tmp_path / "out")
    assert notes == ["out cannot hold pixel_range [0.0, 4095.0]; note it"]
    assert preprocessing_of(read_weights(tmp_path / "out"))["mean"] == PREPROCESSING["mean"]
    convert_weights(weights_of(ours(), preprocessing=known), "vitcli", tmp_path / "w.safetensors")
    assert preprocessing_of(read_weights(tmp_path / "w.safetensors")) == known


def test_a_crop_that_transformers_has_not(tmp_path):
    weights = weights_of(ours(), preprocessing=PREPROCESSING | {"crop_mode": "border"})
    with pytest.raises(WeightsError, match="hf has no crop_mode border"):
        convert_weights(weights, "hf", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_usual_heads_are_said(tmp_path):
    """192 wide is 3 heads for most, not for all."""
    wide = ours(embed_dim=192, num_heads=12, depth=1).state_dict()
    notes = convert_weights(Weights(wide, {}, "w.pth"), "vitcli", tmp_path / "plain.safetensors")
    assert notes == ["num_heads 3 assumed from the width of the attention; set --num_heads N if that is wrong"]
    assert convert_weights(Weights(wide, {}, "w.pth"), "timm", tmp_path / "told", num_heads=12) == []
    run = {"recipe": {"model": "vit_ti_patch16", "num_heads": None}}  # the variant's own
    assert convert_weights(Weights(wide, run, "w.pth"), "vitcli", tmp_path / "run.safetensors") == []


def test_what_evaluates_where_training_draws_the_filter(tmp_path):
    weights = weights_of(ours(), preprocessing=PREPROCESSING | {"interpolation": "random"})
    convert_weights(weights, "timm", tmp_path / "out")
    cfg = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).pretrained_cfg
    timm.data.create_transform(**timm.data.resolve_data_config(cfg))
    assert cfg["interpolation"] == "bicubic"


def test_other_blocks_are_named(tmp_path):
    own = {"transformer": "linformer", "embed_dim": 32, "num_heads": 2}
    tensors = create_model("vit_ti_patch16", num_classes=5, img_size=32, **own).state_dict()
    run = {"recipe": {"model": "vit_ti_patch16", "image_resize": 32, "drop_rate": 0.0, **own}}
    with pytest.raises(WeightsError, match=r"timm has no model for vit_ti_patch16 with .*transformer: linformer"):
        convert_weights(Weights(tensors, run), "timm", tmp_path / "out")


def test_normalized_queries_are_named(tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=32, qk_norm=True, depth=1)
    with pytest.raises(WeightsError, match="normalized queries and keys"):
        convert_weights(Weights(theirs.state_dict(), {}, "w.pth"), "vitcli", tmp_path / "w.safetensors")


def test_show(tmp_path, capsys):
    """The project the names belong to, if it is known; and the meaning of 96 if the number of heads is not known."""
    for module, words in (
        (torch.nn.Linear(2, 2), "not recognized"),
        (ours(), "timm's, as in vitcli"),
        (lucid_vit(heads=3, dim_head=32), "head_dim: 96 / num_heads"),
    ):
        torch.save(module.state_dict(), tmp_path / "w.pth")
        show(str(tmp_path / "w.pth"))
        assert words in capsys.readouterr().out


def test_vit_pytorch_becomes_ours_only(tmp_path):
    weights = Weights(lucid_vit().state_dict(), {}, "w.pth")
    convert_weights(weights, "vitcli", tmp_path / "w.safetensors")
    assert find_fit(read_weights(tmp_path / "w.safetensors")).options["norm_eps"] == 1e-5
    with pytest.raises(WeightsError, match=r"patch_norm|qkv_bias"):
        convert_weights(weights, "timm", tmp_path / "out")


def test_where_it_is_written(tmp_path):
    weights = weights_of(ours())
    (tmp_path / "there.pth").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        convert_weights(weights, "torchvision", tmp_path / "there.pth")
    assert (tmp_path / "there.pth").read_text() == "mine"
    with pytest.raises(UsageError, match="no folder"):
        convert_weights(weights, "torchvision", tmp_path / "no" / "w.pth")
    with pytest.raises(UsageError, match="takes a folder"):
        convert_weights(weights, "timm", tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match=r"\.npz"):
        convert_weights(weights, "google", tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="fits no model"):
        convert_weights(Weights({"a": torch.ones(1)}), "timm", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["there.pth"]


def test_tensors_that_share_memory(tmp_path):
    tensors = randomized(ours()).state_dict()
    tensors["norm.weight"] = tensors["blocks.0.norm1.weight"]
    tensors["norm.bias"] = tensors["blocks.0.mlp.fc1.weight"].flatten()[:32]
    convert_weights(Weights(tensors, META, "w.pth"), "vitcli", tmp_path / "out.safetensors")
    assert same(read_weights(tmp_path / "out.safetensors").tensors, tensors)


def test_a_gray_fastvit_and_its_size(tmp_path):
    source = randomized(create_model("fastvit_t8", in_chans=1, num_classes=3))
    recipe = {"model": "fastvit_t8", "image_resize": [64, 128]}
    convert_weights(Weights(source.state_dict(), {"recipe": recipe}), "timm", tmp_path / "out")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert theirs.pretrained_cfg["input_size"] == (1, 64, 128)
    torch.testing.assert_close(logits(theirs, pictures(1)), logits(source, pictures(1)), atol=1e-5, rtol=1e-5)
    opened = open_network(tmp_path / "out")
    assert opened.recipe.model.in_channels == 1
    assert opened.recipe.augmentation.mean == (0.449,)
