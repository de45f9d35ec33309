"""Other projects' ViTs, the modules themselves, agree with ours that has their weights; names go there and back."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from tests.models.vit_oracles import (
    TINY,
    FirstReleaseViT,
    hf_vit,
    lucid_vit,
    ours,
    pictures,
    timm_vit,
    torchvision_vit,
)  # fmt: skip
from tests.support.tensors import randomized
from vitcli.errors import WeightsError
from vitcli.models.vit_google import from_google, to_google
from vitcli.models.vit_keys import family_of, from_any, to_hf, to_torchvision
from vitcli.models.vit_options import name_and_options, options_of

LUCID = {"qkv_bias": False, "patch_norm": True, "norm_eps": 1e-5}
FIRST = {"qkv_bias": False, "norm_eps": 1e-5, "final_norm": False, "attn_scale": "full", "head_hidden": 64}

#: name: (family, their module, our options)
ORACLES = {
    "torchvision": ("torchvision", lambda: torchvision_vit(), {}),
    "torchvision with pre_logits": (
        "torchvision",
        lambda: torchvision_vit(representation_size=24),
        {"pre_logits": 24},
    ),
    "timm": ("timm", lambda: timm_vit(), {}),
    "timm, mean": ("timm", lambda: timm_vit(global_pool="avg"), {"global_pool": "avg", "class_token": True}),
    "timm, mean, no class token": (
        "timm",
        lambda: timm_vit(global_pool="avg", class_token=False),
        {"global_pool": "avg"},
    ),
    "timm without qkv bias": ("timm", lambda: timm_vit(qkv_bias=False), {"qkv_bias": False}),
    "timm with registers": ("timm", lambda: timm_vit(reg_tokens=4), {"reg_tokens": 4}),
    "timm, positions of patches only": (
        "timm",
        lambda: timm_vit(reg_tokens=2, no_embed_class=True),
        {"reg_tokens": 2},
    ),
    "DeiT III": ("timm", lambda: timm_vit("deit3_base_patch16_224"), {"layer_scale_init": 1.0}),
    "DeiT distilled": ("timm", lambda: timm_vit("deit_base_distilled_patch16_224"), {"distilled": True}),
    "HF ViT": ("hf", lambda: hf_vit(), {}),
    "HF ViT without qkv bias": ("hf", lambda: hf_vit(qkv_bias=False), {"qkv_bias": False}),
    "HF DeiT": ("hf", lambda: hf_vit(distilled=True), {"distilled": True}),
    "vit-pytorch": ("vit-pytorch", lambda: lucid_vit(), {**LUCID, "head_dim": 64}),
    "vit-pytorch, narrow heads": ("vit-pytorch", lambda: lucid_vit(dim_head=16), LUCID),
    "vit-pytorch, one head without an output projection": (
        "vit-pytorch",
        lambda: lucid_vit(heads=1, dim_head=32),
        {**LUCID, "num_heads": 1},
    ),
    "vit-pytorch v0.1": ("vit-pytorch", lambda: randomized(FirstReleaseViT()), FIRST),
}


def logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        output = model(images)
    return output if isinstance(output, Tensor) else output.logits


def same(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """To the last bit, in the same order, each with a memory of its own."""
    return list(tensors) == list(expected) and all(
        torch.equal(tensors[name], expected[name]) and tensors[name].is_contiguous() for name in expected
    )


@pytest.mark.parametrize("name", ORACLES)
def test_logits_of_the_real_module(name):
    family, build, options = ORACLES[name]
    theirs = build()
    tensors = theirs.state_dict()
    assert family_of(tensors) == family
    model = ours(**options)
    model.load_state_dict(from_any(tensors), strict=True)
    expected = logits(theirs, pictures())
    assert expected.std() > 0.1
    torch.testing.assert_close(logits(model, pictures()), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ORACLES)
def test_options_that_the_tensors_show(name):
    """The model they build takes the tensors; heads are the only number that may be missing."""
    _, build, options = ORACLES[name]
    tensors = build().state_dict()
    base, found = name_and_options(options_of(tensors))
    assert base == "vit_b_patch16"
    expected = TINY | options | {"layer_scale_init": 1e-5} if "layer_scale_init" in options else TINY | options
    assert {key: value for key, value in found.items() if expected.get(key) != value} in ({}, {"num_heads": 2})
    model = ours(**{"num_heads": 1, **found})
    model.load_state_dict(from_any(tensors), strict=True)


def test_gray_patches_of_vit_pytorch():
    theirs, model = lucid_vit(channels=1), ours(**LUCID, head_dim=64, in_chans=1)
    assert options_of(theirs.state_dict())["in_chans"] == 1
    model.load_state_dict(from_any(theirs.state_dict()), strict=True)
    expected = logits(theirs, pictures(1))
    torch.testing.assert_close(logits(model, pictures(1)), expected, atol=1e-5, rtol=1e-5)


def test_a_plugged_transformer_of_vit_pytorch_keeps_its_names():
    from vit_pytorch.efficient import ViT as EfficientViT

    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(32, 2, 64, batch_first=True), 2, enable_nested_tensor=False
    )
    theirs = randomized(EfficientViT(image_size=32, patch_size=8, num_classes=5, dim=32, transformer=encoder))
    model = ours(transformer=encoder, patch_norm=True, norm_eps=1e-5)
    model.load_state_dict(from_any(theirs.state_dict()), strict=True)
    expected = logits(theirs, pictures())
    torch.testing.assert_close(logits(model, pictures()), expected, atol=1e-5, rtol=1e-5)


def test_vit_pytorch_of_2021():
    """Norms in one wrapper, dropouts in the MLP, a head with a norm of its own: the names of releases 0.7 to 1.2."""
    own = randomized(ours(qkv_bias=False)).state_dict()
    theirs = {}
    for name, tensor in own.items():
        for ours_, lucid in {
            "pos_embed": "pos_embedding", "patch_embed.proj": "to_patch_embedding.1", "blocks.": "transformer.layers.",
            ".norm1.": ".0.norm.", ".attn.qkv.": ".0.fn.to_qkv.", ".attn.proj.": ".0.fn.to_out.0.",
            ".norm2.": ".1.norm.", ".mlp.fc1.": ".1.fn.net.0.", ".mlp.fc2.": ".1.fn.net.3.",
        }.items():  # fmt: skip
            name = name.replace(ours_, lucid)
        theirs[name.replace("head.", "mlp_head.1.") if name.startswith("head.") else name] = tensor
    theirs = {f"mlp_head.0.{name[5:]}" if name.startswith("norm.") else name: t for name, t in theirs.items()}
    kernel = theirs["to_patch_embedding.1.weight"]
    theirs["to_patch_embedding.1.weight"] = kernel.permute(0, 2, 3, 1).flatten(1)
    converted = from_any(theirs)
    assert converted.keys() == own.keys()
    assert all(torch.equal(converted[name], own[name]) for name in own)


def test_old_files_of_torchvision():
    new = torchvision_vit().state_dict()
    old = {name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): t for name, t in new.items()}
    assert sum("linear_" in name for name in old) == 8
    assert same(from_any(old), from_any(new))


def test_deits_words_for_layer_scale():
    """As DeiT III's published files have them: no `ls1`, no row for the class token."""
    tensors = timm_vit("deit3_base_patch16_224").state_dict()
    theirs = {name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): t for name, t in tensors.items()}
    assert "blocks.1.gamma_2" in theirs
    assert theirs["pos_embed"].shape == (1, 16, 32)
    assert same(from_any(theirs), from_any(tensors))
    assert not from_any(theirs)["pos_embed"][:, 0].any()


def test_transformers_names_in_memory_and_in_files(tmp_path):
    from safetensors.torch import load_file

    theirs = hf_vit()
    theirs.save_pretrained(tmp_path)
    in_file, in_memory = load_file(tmp_path / "model.safetensors"), theirs.state_dict()
    assert in_file.keys() != in_memory.keys()
    expected = from_any(in_memory)
    for tensors in (in_file, {name.removeprefix("vit."): tensor for name, tensor in in_file.items()}):
        converted = from_any(tensors)
        assert converted.keys() == expected.keys()
        assert all(torch.equal(converted[name], expected[name]) for name in expected)
    pooled = {"vit.pooler.dense.weight": torch.ones(32, 32), "vit.pooler.dense.bias": torch.ones(32), **in_file}
    assert {"pre_logits.fc.weight", "pre_logits.fc.bias"} <= from_any(pooled).keys()


def test_names_that_published_files_have():
    """Spelled out, so that two equal mistakes in the two directions do not hide each other."""
    tensors = randomized(ours()).state_dict()
    there = to_hf(tensors)
    for name in (
        "vit.embeddings.position_embeddings",
        "vit.encoder.layer.1.attention.attention.key.bias",
        "vit.encoder.layer.1.attention.output.dense.weight",
        "vit.encoder.layer.0.intermediate.dense.weight",
        "vit.encoder.layer.0.output.dense.weight",
        "vit.layernorm.weight",
        "classifier.bias",
    ):
        assert name in there
    google = to_google(tensors, 2)
    assert google["embedding/kernel"].shape == (8, 8, 3, 32)
    assert google["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel"].shape == (32, 2, 16)
    assert google["Transformer/encoderblock_0/MultiHeadDotProductAttention_1/out/kernel"].shape == (2, 16, 32)
    assert google["Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"].shape == (32, 64)
    assert google["Transformer/encoder_norm/scale"].shape == (32,)
    assert google["head/kernel"].shape == (32, 5)


@pytest.mark.parametrize("options", [{}, {"pre_logits": 24}])
def test_round_trips(options):
    tensors = randomized(ours(**options)).state_dict()
    assert same(from_any(tensors), tensors)
    assert same(from_any(to_torchvision(tensors)), tensors)
    assert same(from_any(to_google(tensors, 2)), tensors)
    assert same(from_any(to_hf(tensors)), tensors)
    distilled = randomized(ours(distilled=True)).state_dict()
    assert same(from_any(to_hf(distilled)), distilled)


@pytest.mark.parametrize("prefix", ["", "opt/target/", "params/", "params/img/"])
def test_prefixes_of_google(prefix):
    tensors = randomized(ours()).state_dict()
    there = {f"{prefix}{name}": tensor for name, tensor in to_google(tensors, 2).items()}
    names = {"": [], "params/img/": ["params/txt/head/kernel", "params/t"]}.get(prefix, ["opt/state/step"])
    others = {name: torch.ones(1) for name in names}
    assert same(from_any({**there, **others}), tensors)


def big_vision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As big_vision's scanned model keeps them."""
    google = {
        name.replace("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0")
        .replace("MlpBlock_3", "MlpBlock_0")
        .replace("LayerNorm_2", "LayerNorm_1")
        .replace("Transformer/posembed_input/", ""): tensor
        for name, tensor in to_google(tensors, 2).items()
    }
    blocks = [name for name in google if "encoderblock_0/" in name]
    stacked = {
        name.replace("encoderblock_0/", "encoderblock/"): torch.stack(
            [google[name], google[name.replace("encoderblock_0", "encoderblock_1")]]
        )
        for name in blocks
    }
    return {name: tensor for name, tensor in google.items() if "encoderblock_" not in name} | stacked


def test_big_visions_scanned_blocks():
    tensors = randomized(ours()).state_dict()
    converted = from_google(big_vision(tensors))
    assert converted.keys() == tensors.keys()
    assert all(torch.equal(converted[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"reg_tokens": 2}, "reg_token"),
        ({"layer_scale_init": 1e-5}, r"blocks\.0\.ls1\.gamma"),
        ({"global_pool": "avg", "class_token": True}, "fc_norm"),
        ({"patch_norm": True}, r"patch_embed\.norm_in"),
        ({"head_hidden": 8}, r"head\.0"),
        ({"fine_tune_from": 3}, "fine_tune"),
    ],
)
def test_what_has_no_place_elsewhere_is_named(options, named):
    tensors = ours(**options).state_dict()
    for export in (to_torchvision, to_hf, lambda tensors: to_google(tensors, 2)):
        with pytest.raises(WeightsError, match=named):
            export(tensors)


def test_other_tensors_are_left_alone():
    tensors = {"stem.0.weight": torch.ones(2), "blocks.0.norm1.weight": torch.ones(3)}
    assert family_of(tensors) is None
    assert from_any(tensors) == tensors
    assert options_of(tensors) == {}
    damaged = to_hf(randomized(ours()).state_dict())
    del damaged["vit.encoder.layer.0.attention.attention.key.weight"]
    assert {"blocks.0.attn.q.weight", "blocks.0.attn.v.weight"} <= from_any(damaged).keys()  # load_weights refuses it
