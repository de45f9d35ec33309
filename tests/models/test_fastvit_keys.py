"""Apple's names and back, with timm's own converter as a second opinion."""

import pytest
import timm
import torch
from timm.models.fastvit import checkpoint_filter_fn

from tests.models.oracle import NAMES
from vitcli.layers.reparam import reparameterize
from vitcli.models.fastvit_keys import from_apple, is_apple, to_apple
from vitcli.models.registry import create_model


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name):
    with torch.device("meta"):
        model = create_model(name)
        judge = timm.create_model(name)
    for form in (model, reparameterize(model)):
        tensors = form.state_dict()
        apple = to_apple(tensors)
        assert is_apple(apple)
        assert not is_apple(tensors)
        assert len(apple) == len(tensors)
        assert list(from_apple(apple)) == list(tensors)
        assert list(from_apple(tensors)) == list(tensors)  # ours already
    apple = to_apple(model.state_dict())
    assert list(checkpoint_filter_fn(apple, judge)) == list(model.state_dict())


def test_names_that_apples_files_have():
    """Spelled out, so that two equal mistakes in the two directions do not hide each other."""
    with torch.device("meta"):
        model = create_model("fastvit_sa12")
    apple = to_apple(model.state_dict())
    for key in (
        "patch_embed.0.rbr_conv.0.conv.weight",
        "network.0.0.token_mixer.norm.rbr_skip.running_mean",
        "network.0.0.token_mixer.layer_scale",
        "network.1.proj.0.lkb_origin.bn.num_batches_tracked",
        "network.6.pe.weight",
        "network.7.1.layer_scale_2",
        "network.7.0.convffn.fc1.bias",
        "conv_exp.se.reduce.weight",
        "head.bias",
    ):
        assert key in apple
    fused = to_apple(reparameterize(model).state_dict())
    for place in ("network.6.reparam_conv", "network.3.proj.0.lkb_reparam", "network.3.proj.1.reparam_conv"):
        assert f"{place}.bias" in fused


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12"])
def test_mindcvs_port(name):
    """Names from its source (mindcv/models/fastvit.py), after the reader renames norms; no file was published."""
    tensors = create_model(name, num_classes=3).state_dict()
    theirs = {}
    for key, tensor in to_apple(tensors).items():
        if "convffn.fc" in key and key.endswith("bias"):
            tensor.zero_()
        elif not key.endswith("num_batches_tracked"):
            key = key.replace(".proj.", ".layers.") if key.split(".")[1] in ("1", "3", "5") else key
            theirs[key.replace("token_mixer.layer_scale", "token_mixer.w")] = tensor
    assert "network.1.layers.0.lkb_origin.conv.weight" in theirs
    converted = from_apple(theirs)
    assert converted.keys() == tensors.keys()
    assert all(torch.equal(converted[key], tensors[key]) for key in tensors)
