"""Configurations of timm and transformers: every key they write is known, and what it says is honored or refused."""

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
import timm
import torch
from timm.models._hub import save_config_for_hf
from timm.models._pretrained import PretrainedCfg
from timm.models.fastvit import FastVit
from timm.models.vision_transformer import VisionTransformer
from transformers import (
    BitImageProcessorPil,
    DeiTConfig,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
)

from tests.models.vit_oracles import TINY, hf_vit, pictures, timm_vit
from tests.support.tensors import randomized
from vitcli.commands.weights import show
from vitcli.errors import WeightsError
from vitcli.models.registry import create_model
from vitcli.networks.opened import open_network
from vitcli.weights import configuration
from vitcli.weights.configuration import HF, TIMM, TIMM_FASTVIT, TIMM_PRETRAINED, TIMM_VIT, Keys, stated_options
from vitcli.weights.fit import find_fit
from vitcli.weights.load import load_weights
from vitcli.weights.preprocessing import PROCESSOR
from vitcli.weights.read import Weights

TIMMS = {"architecture": "vit_base_patch16_224", "global_pool": "token"}
HFS = {"model_type": "vit", "hidden_act": "gelu"}


def known(keys: Keys) -> set[str]:
    return {*keys.honored, *keys.shown, *keys.fixed, *keys.ignored}


def arguments(cls: type) -> set[str]:
    return set(inspect.signature(cls).parameters)


def test_every_key_that_timm_writes_is_known(tmp_path):
    assert {field.name for field in dataclasses.fields(PretrainedCfg)} <= known(TIMM_PRETRAINED)
    assert arguments(VisionTransformer) == known(TIMM_VIT)
    assert arguments(FastVit) | {"img_size"} == known(TIMM_FASTVIT)
    save_config_for_hf(timm_vit(), str(tmp_path / "config.json"), {"label_names": list("abcde")})
    assert json.loads((tmp_path / "config.json").read_text()).keys() <= known(TIMM)


@pytest.mark.parametrize("config", [ViTConfig, DeiTConfig, Dinov2Config, Dinov2WithRegistersConfig])
def test_every_key_that_transformers_writes_is_known(config):
    written = json.loads(config().to_json_string(use_diff=False))
    assert written.keys() <= known(HF)
    HF.check(written, "memory")  # and each first value is one of ours


def test_each_key_is_in_one_list():
    for keys in vars(configuration).values():
        if isinstance(keys, Keys):
            assert len(known(keys)) == sum(map(len, (keys.honored, keys.shown, keys.fixed, keys.ignored))), keys.name


def table() -> str:
    """All keys by what is done with them, as docs/weights.md has it."""
    rows = []
    for keys, file in (
        (TIMM, "timm `config.json`"),
        (TIMM_PRETRAINED, "its `pretrained_cfg`"),
        (TIMM_VIT, "its `model_args`, ViT"),
        (TIMM_FASTVIT, "its `model_args`, FastViT"),
        (HF, "transformers `config.json`"),
        (PROCESSOR, "`preprocessor_config.json`"),
    ):
        lists = ((keys.honored, "honored"), (keys.shown, "shown by the tensors"), (keys.ignored, "without influence"))
        rows += [(file, kind, ", ".join(f"`{name}`" for name in names)) for names, kind in lists if names]
        if keys.fixed:
            only = (f"`{name}` {', '.join(map(repr, values))}" for name, values in keys.fixed.items())
            rows.append((file, "refused, except", "; ".join(only)))
    return "".join(f"| {' | '.join(row)} |\n" for row in [("file", "", "keys"), ("---", "---", "---"), *rows])


def test_the_table_of_the_documentation():
    assert table() in Path("docs/weights.md").read_text(), f"docs/weights.md must contain\n{table()}"


def of_timm(folder, model: torch.nn.Module, **changed) -> torch.nn.Module:
    """The network that is opened from what timm saves, with these arguments in the configuration."""
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    save_config_for_hf(model, str(folder / "config.json"), model_args=changed)
    return open_network(folder).model


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "swish"])
def test_activations_of_timm(tmp_path, name):
    theirs = timm_vit(act_layer=name)
    torch.testing.assert_close(of_timm(tmp_path, theirs)(pictures()), theirs(pictures()))


@pytest.mark.parametrize(
    "options",
    [
        {"global_pool": "avg"},
        {"global_pool": "max"},
        {"global_pool": "avgmax", "class_token": False},
        {"global_pool": "avg", "fc_norm": False},
        {"global_pool": "avgmax", "fc_norm": False, "reg_tokens": 2},
        {"pre_norm": True},
        {"init_values": 0.1, "reg_tokens": 3, "no_embed_class": True},
    ],
    ids=str,
)
def test_pooling_and_norms_of_timm(tmp_path, options):
    theirs = timm_vit(**options)
    torch.testing.assert_close(of_timm(tmp_path, theirs)(pictures()), theirs(pictures()))


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "relu", "silu"])
def test_activations_of_transformers(tmp_path, name):
    theirs = hf_vit(hidden_act=name)
    theirs.save_pretrained(tmp_path)
    torch.testing.assert_close(open_network(tmp_path).model(pictures()), theirs(pictures()).logits)


@pytest.mark.parametrize("registers", [0, 3])
def test_dinov2_of_transformers(tmp_path, registers):
    tiny = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    if registers:
        theirs = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**tiny, num_register_tokens=registers))
    else:
        theirs = Dinov2Model(Dinov2Config(**tiny))
    randomized(theirs).save_pretrained(tmp_path)
    opened = open_network(tmp_path)
    torch.testing.assert_close(opened.model(pictures()), theirs(pictures()).pooler_output)
    assert any("mask_token not loaded" in note for note in opened.notes)


def test_dinov2_of_transformers_with_another_size_of_images(tmp_path):
    """Its processor crops 48 px, its positions are for 32 px: transformers resizes them by its own rule."""
    tiny = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    theirs = randomized(Dinov2Model(Dinov2Config(**tiny)))
    theirs.save_pretrained(tmp_path)
    sizes = {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}}
    BitImageProcessorPil(**sizes).save_pretrained(tmp_path)
    opened = open_network(tmp_path)
    assert opened.recipe.augmentation.image_resize == 48
    images = pictures(side=48)
    torch.testing.assert_close(opened.model(images), theirs(images).pooler_output)


def test_a_named_norm_has_its_own_eps(tmp_path):
    """timm's "layernorm" replaces the norms of CLIP, whose eps is 1e-5, by those with 1e-6."""
    tiny = TINY | {"pre_norm": True, "norm_layer": "layernorm"}
    theirs = randomized(timm.create_model("vit_base_patch16_clip_224", **tiny))
    assert {theirs.norm.eps, theirs.blocks[0].norm1.eps} == {1e-6}
    model = of_timm(tmp_path, theirs, norm_layer="layernorm")
    assert {module.eps for module in model.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}
    torch.testing.assert_close(model(pictures()), theirs(pictures()))


def test_a_classifier_of_dinov2_is_refused_for_its_reason(tmp_path):
    config = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, num_labels=5)
    Dinov2ForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="a classifier of the class token and the mean of the patches"):
        open_network(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TIMMS | {"architecture": "vit_small_patch16_rope_224"}, "rope_224'; it has rotary positions"),
        (TIMMS | {"architecture": "vit_base_patch16_rpn_224"}, "norms after the branches"),
        (TIMMS | {"architecture": "vit_base_r50_s16_224"}, "a ResNet before it"),
        (TIMMS | {"architecture": "swin_tiny_patch4_window7_224"}, "it is not a plain ViT"),
        (TIMMS | {"global_pool": "map"}, "global_pool: 'map'; this is attention pooling"),
        (TIMMS | {"global_pool": ""}, "global_pool: ''; vitcli's ViTs have token, avg, max, avgmax"),
        (TIMMS | {"model_args": {"qk_norm": True}}, "model_args says qk_norm: True; vitcli's models have False"),
        (TIMMS | {"model_args": {"norm_layer": "rmsnorm"}}, "norm_layer: 'rmsnorm'; vitcli's models have None"),
        (TIMMS | {"model_args": {"act_layer": "mish"}}, "act_layer: 'mish'; vitcli has gelu"),
        (TIMMS | {"model_args": {"act_layer": ["gelu"]}}, "act_layer: \\['gelu'\\]"),
        (TIMMS | {"model_args": {"new": 1}}, "model_args says new: 1; this key is not known"),
        (TIMMS | {"model_args": "vit"}, "model_args: 'vit'; it must be a table"),
        (TIMMS | {"pretrained_cfg": {"label_offset": 1}}, "label_offset: 1"),
        (TIMMS | {"new": 1}, "config.json says new: 1"),
        ({"architecture": "fastvit_t8", "model_args": {"act_layer": "relu"}}, "act_layer: 'relu'; .* None or 'gelu'"),
        ({"architecture": "fastvit_t8", "model_args": {"fork_feat": True}}, "fork_feat: True"),
        (HFS | {"hidden_act": "laplace"}, "hidden_act: 'laplace'"),
        (HFS | {"model_type": "beit"}, "model_type: 'beit'"),
        (HFS | {"problem_type": "regression"}, "problem_type: 'regression'"),
        (HFS | {"pooler_act": "relu"}, "pooler_act: 'relu'"),
        (HFS | {"use_swiglu_ffn": True}, "use_swiglu_ffn: True"),
        (HFS | {"rope_theta": 100}, "rope_theta: 100; this key is not known"),
    ],
    ids=str,
)
def test_what_cannot_be_honored_is_refused_by_name(config, message):
    with pytest.raises(WeightsError, match=message):
        stated_options(config, "folder/config.json")


def test_sizes_that_contradict_each_other():
    """timm cuts an image of 36 px to 32 for patches of 8, which no resizing equals."""
    tensors = timm_vit().state_dict()
    config = TIMMS | {"pretrained_cfg": {"input_size": [3, 36, 36]}, "model_args": {"num_heads": 2}}
    with pytest.raises(WeightsError, match="images of 36 px, but the positions are for 32 px"):
        find_fit(Weights(tensors, {"config": config}))


def test_arguments_are_stronger_than_the_name(tmp_path):
    clip = timm.create_model("vit_base_patch16_clip_quickgelu_224", **TINY | {"act_layer": "silu", "pre_norm": False})
    theirs = randomized(clip)
    assert theirs.blocks[0].norm1.eps == 1e-5
    torch.testing.assert_close(of_timm(tmp_path, theirs, act_layer="silu")(pictures()), theirs(pictures()))


@pytest.mark.parametrize("size", [(64, 96), (16, 64), (96, 64)], ids=str)
@pytest.mark.parametrize("options", [{}, {"no_embed_class": True}, {"reg_tokens": 3, "no_embed_class": True}], ids=str)
def test_images_that_are_not_square(tmp_path, size, options):
    """With patches of 16 px, 64 x 96 has 24, and one more for the class token makes 25, a square; 16 x 64 has 4."""
    theirs = timm_vit(img_size=size, patch_size=16, **options)
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(of_timm(tmp_path, theirs)(images), theirs(images))


def test_images_of_transformers_that_are_not_square(tmp_path):
    theirs = hf_vit(image_size=[64, 96], patch_size=16)
    theirs.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(open_network(tmp_path).model(images), theirs(images).logits)


def test_positions_of_another_shape_are_not_copied():
    """2 x 8 and 4 x 4 patches are as many."""
    model = create_model("vit_ti_patch16", depth=1, img_size=64, num_classes=3)
    file = create_model("vit_ti_patch16", depth=1, img_size=(32, 128), num_classes=3)
    recipe = {"model": "vit_ti_patch16", "depth": 1, "image_resize": [32, 128]}
    report = load_weights(model, Weights(file.state_dict(), {"recipe": recipe}))
    assert "pos_embed: 2 x 8 positions in the file, 4 x 4 in the model; resized like timm" in report.notes


def test_the_names_of_dinov2s_authors():
    """timm adds their position of the class token to the token, and has none for it."""
    theirs = timm_vit("vit_small_patch14_reg4_dinov2", init_values=0.5)
    tensors = dict(theirs.state_dict())
    of_class = torch.randn_like(tensors["cls_token"])
    tensors["cls_token"] = tensors["cls_token"] - of_class
    tensors["pos_embed"] = torch.cat([of_class, tensors["pos_embed"]], dim=1)
    tensors["register_tokens"] = tensors.pop("reg_token")
    tensors["mask_token"] = torch.zeros(1, 32)
    fit = find_fit(Weights(tensors), num_heads=2)
    model = create_model(fit.name, **fit.options).eval()
    notes = load_weights(model, Weights(tensors)).notes
    torch.testing.assert_close(model(pictures()), theirs(pictures()))
    assert "mask_token not loaded: only training without labels uses it" in notes


def test_show_says_what_is_refused(tmp_path, capsys):
    """It is the command that error messages name, so it shows what others refuse."""
    hf_vit(hidden_act="relu").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"relu"', '"laplace"'))
    (tmp_path / "preprocessor_config.json").write_text('{"do_pad": true}')
    show(str(tmp_path))
    said = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "config.json says hidden_act: 'laplace'" in said
    assert "preprocessor_config.json says do_pad: True" in said


def test_what_a_bare_file_of_clip_does_not_state():
    theirs = timm_vit(pre_norm=True)
    model = create_model("vit_b_patch16", **TINY, pre_norm=True)
    said = " ".join(load_weights(model, Weights(theirs.state_dict())).notes)
    assert "gelu and 1e-06 assumed, but networks of CLIP have an eps of 1e-05" in said
    config = {"architecture": "vit_base_patch16_clip_224", "model_args": {"num_heads": 2}}
    said = " ".join(load_weights(model, Weights(theirs.state_dict(), {"config": config})).notes)
    assert "norm_eps: 1e-05 in the weights, 1e-06 in the model" in said
    assert "assumed" not in said
