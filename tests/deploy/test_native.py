"""The native format: its reference computes, from the folder alone, what the network computes in float64."""

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.deploy.conftest import MEAN, STD, stir
from vitcli.deploy.formats import Order, Setting, open_format
from vitcli.deploy.key_values import from_text, to_text
from vitcli.deploy.native.folder import read_network
from vitcli.deploy.network import Deployed, for_runtime
from vitcli.errors import DataError, UsageError
from vitcli.models.fastvit import FastViT
from vitcli.models.registry import create_model

SIZE = (32, 48)
#: largest difference of a logit / spread of the logits
TOLERANCE = {"fp32": 1e-5, "bf16": 0.12, "int8_dynamic": 0.25}
VITS: list[dict[str, Any]] = [
    {}, {"patch_size": 8, "img_size": 40}, {"in_chans": 1}, {"pos_embed": "sincos2d"}, {"pos_embed": "none"},
    {"global_pool": "avg", "reg_tokens": 2, "layer_scale_init": 0.3}, {"global_pool": "avg", "fc_norm": False},
    {"global_pool": "max"}, {"global_pool": "avgmax", "class_token": True}, {"distilled": True, "reg_tokens": 1},
    {"distilled": True, "head_hidden": 7, "pre_logits": 9}, {"pre_norm": True}, {"patch_norm": True},
    {"attn_scale": "learned"}, {"attn_scale": "full", "head_dim": 8}, {"qkv_bias": False, "act_layer": "quick_gelu"},
    {"act_layer": "gelu_tanh"}, {"act_layer": "relu"}, {"act_layer": "silu", "norm_eps": 1e-3},
    {"final_norm": False}, {"fine_tune_from": 11},
]  # fmt: skip


def vit(**options: Any) -> nn.Module:
    """A ViT whose answers depend on everything in it."""
    torch.manual_seed(0)
    shape = {"img_size": SIZE, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    model: Any = stir(create_model("vit_b_patch16", **shape | options))
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "token")):
            nn.init.normal_(parameter, std=0.1)
    for name in model.classifiers:
        nn.init.normal_(model.get_submodule(name).weight, std=0.3)
    return model


def fastvit(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"depths": (1, 2, 1, 1), "dim": 16, "mlp_ratio": 2, "attention": True, "num_classes": 5}
    shape |= {"layer_scale_init": 0.5} | options
    return stir(FastViT(**shape))


def exported(model: nn.Module, folder: Path, precision: str = "fp32", **words: Any) -> torch.Tensor:
    """Export `model` for pixels; returns the pixels (4, H, W, C)."""
    size, channels = getattr(model, "img_size", 32), getattr(model, "in_chans", 3)
    height, width = size if isinstance(size, tuple) else (size, size)
    pixels = np.random.default_rng(0).integers(0, 256, (4, height, width, channels), dtype=np.uint8)
    normalization = (MEAN[:channels], STD[:channels])
    network = Deployed(for_runtime(model), normalization=normalization, **words).eval()
    given = torch.from_numpy(pixels)
    form = open_format("native", to="export")
    form.export(Order(network=network, example=given, folder=folder, precision=precision, output="probabilities"))
    return given


def compare(model: nn.Module, folder: Path, precision: str) -> None:
    pixels = exported(model, folder, precision)
    channels = pixels.shape[-1]
    images = (pixels / 255 - torch.tensor(MEAN[:channels]).double()) / torch.tensor(STD[:channels])
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(images.permute(0, 3, 1, 2)).log_softmax(-1).numpy()
    session = open_format("native").open_session(folder / "model.txt", Setting(precision, threads=1))
    found = np.log(session(pixels.numpy()))
    assert np.abs(found - expected).max() / expected.std() < TOLERANCE[precision]
    assert expected.std() > 0.02


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("options", VITS, ids=str)
def test_every_vit(options: dict[str, Any], precision: str, tmp_path: Path):
    compare(vit(**options), tmp_path, precision)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize(
    "options", [{}, {"attention": False}, {"dim": 32, "in_chans": 1}, {"img_size": (33, 70)}], ids=str
)
def test_every_fastvit(options: dict[str, Any], precision: str, tmp_path: Path):
    compare(fastvit(**{"img_size": 64} | options), tmp_path, precision)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"patch_embed": "spt"}, "ShiftedPatchEmbed"), ({"patch_embed": "conv"}, "Stem"),
     ({"transformer": nn.Identity()}, "the transformer Identity"), ({"num_classes": 0}, "without a head")],
)  # fmt: skip
def test_parts_that_the_format_does_not_have_are_named(options: dict[str, Any], words: str, tmp_path: Path):
    torch.manual_seed(0)
    options = {"num_classes": 5} | options
    model = create_model("vit_ti_patch16", img_size=32, depth=1, **options)
    with pytest.raises(UsageError, match=words):
        exported(model.eval(), tmp_path)


def test_another_architecture_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match="not FViT"):
        exported(create_model("fvit", num_classes=5).eval(), tmp_path)


def test_temperature_and_sigmoid(tmp_path: Path):
    model = vit()
    pixels = exported(model, tmp_path, activation="sigmoid", temperature=2.5)
    images = (pixels / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        expected = (model(images.permute(0, 3, 1, 2)) / 2.5).sigmoid().numpy()
    found = open_format("native").open_session(tmp_path / "model.txt", Setting("fp32"))(pixels.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8_dynamic"])
def test_the_description_is_enough_to_find_the_tensors(precision: str, tmp_path: Path):
    """Those at the places that model.txt names are those that safetensors reads."""
    exported(vit(), tmp_path, precision)
    found, expected = read_network(tmp_path / "model.txt").tensors, load_file(tmp_path / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)
    kinds = {tensor.dtype for name, tensor in expected.items() if ".qkv.weight" in name}
    assert kinds == {torch.float32 if precision == "fp32" else torch.int8}
    assert expected["patch.weight"].dtype == (torch.float32 if precision == "fp32" else torch.bfloat16)


def test_damaged_folders_are_refused(tmp_path: Path):
    exported(vit(), tmp_path)
    text, weights = tmp_path / "model.txt", tmp_path / "model.safetensors"
    whole, values = weights.read_bytes(), from_text(text.read_text())
    weights.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="bytes, not"):
        read_network(text)
    weights.write_bytes(whole)
    for key, value, words in (
        ("tensor.positions", f"F32 6x32 {len(whole) - 8} 768", "does not fit"),
        ("tensor.positions", "F32 6x33 0 768", "does not fit"), ("native_version", "2", "version 2, not 1"),
    ):  # fmt: skip
        text.write_text(to_text(values | {key: value}))
        with pytest.raises(DataError, match=words):
            read_network(text)
    text.write_text(to_text(values).replace("depth=2", "depth=3"))
    with pytest.raises(DataError, match="checksum"):
        read_network(text)


def test_text_of_keys_and_values():
    values = {"a": "1", "b c": " x\\y\nz\r=1 ", "d": ""}
    text = to_text(values)
    assert text.splitlines()[1] == "b c= x\\\\y\\nz\\r=1 "
    assert text.splitlines()[-1] == f"checksum={hashlib.sha256(text[: text.rfind('checksum=')].encode()).hexdigest()}"
    assert from_text(text) == values
    for lines in ("a=1\na=2\n", "=1\n", "word\n", "a=\\t\n", "a=\\\n"):
        with pytest.raises(ValueError, match=r"twice|escape"):
            from_text(f"{lines}checksum={hashlib.sha256(lines.encode()).hexdigest()}\n")
