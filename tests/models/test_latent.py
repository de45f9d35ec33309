"""Features of every model: what the head sees, what a network without a head returns, weights for both."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from tests.models.oracle import images, pair
from tests.models.vit_oracles import TINY, ours, pictures, timm_vit
from tests.support.tensors import randomized
from vitcli.errors import UsageError
from vitcli.models.fastvit import FastViT
from vitcli.models.registry import create_model
from vitcli.weights.load import load_weights
from vitcli.weights.read import Weights

SMALL = {"drop_rate": 0.5}


def fastvit(num_classes: int) -> FastViT:
    model = FastViT(depths=(1, 1), dim=16, mlp_ratio=2, attention=True, num_classes=num_classes, **SMALL)
    return randomized(model)


#: model by number of classes, width of its features, names of the head's tensors
MODELS: dict[str, tuple[Any, int, list[str]]] = {
    "fastvit": (fastvit, 64, ["head.fc.weight", "head.fc.bias"]),
    "vit": (lambda n: ours(num_classes=n, **SMALL), 32, ["head.weight", "head.bias"]),
    "vit, mean": (lambda n: ours(num_classes=n, global_pool="avg", **SMALL), 32, ["head.weight", "head.bias"]),
    "vit, two layers": (
        lambda n: ours(num_classes=n, head_hidden=24, **SMALL),
        32,
        ["head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"],
    ),
    "vit, pre_logits": (lambda n: ours(num_classes=n, pre_logits=24, **SMALL), 24, ["head.weight", "head.bias"]),
    "vit, distilled": (
        lambda n: ours(num_classes=n, distilled=True, **SMALL),
        32,
        ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"],
    ),
    "vit, linformer": (
        lambda n: ours(num_classes=n, transformer="linformer", mlp_ratio=4.0, **SMALL),
        32,
        ["head.weight", "head.bias"],
    ),
    "fvit": (
        lambda n: create_model("fvit", num_classes=n),
        192,
        ["head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"],
    ),
    "fvit, one layer": (
        lambda n: create_model("fvit", num_classes=n, head_hidden=0),
        192,
        ["head.weight", "head.bias"],
    ),
}


def built(name: str, num_classes: int) -> Any:
    torch.manual_seed(num_classes)
    return MODELS[name][0](num_classes)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_without_a_head_returns_its_features(name: str):
    """In training mode too: the dropout before a head does not apply to features."""
    model, x = built(name, 0), pictures()
    assert not [key for key in model.state_dict() if key.startswith("head")]
    for mode in (True, False):
        model.train(mode)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        out = model(x)
        assert out.shape == (2, MODELS[name][1]) == (2, model.num_features)
        assert torch.equal(out, model.latent(x))
    seen = []
    for place in (model.to_latent, model.to_cls_token):
        place.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert torch.equal(model(x), seen[0])
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("name", MODELS)
def test_weights_without_a_head_in_a_model_with_one(name: str):
    headless, model = built(name, 0).eval(), built(name, 5).eval()
    before = {key: model.state_dict()[key].clone() for key in MODELS[name][2]}
    report = load_weights(model, Weights(headless.state_dict()))
    assert report.missing == MODELS[name][2]
    assert report.unexpected == []
    assert "head not loaded: the file has none" in report.notes
    torch.testing.assert_close({key: model.state_dict()[key] for key in before}, before, atol=0, rtol=0)
    assert torch.equal(model.latent(pictures()), headless(pictures()))


@pytest.mark.parametrize("name", MODELS)
def test_weights_with_a_head_in_a_model_without_one(name: str):
    model, headless = built(name, 5).eval(), built(name, 0).eval()
    report = load_weights(headless, Weights(model.state_dict()))
    assert report.missing == []
    assert report.unexpected == MODELS[name][2]
    assert "head not loaded: the file has 5 classes, the model has no head" in report.notes
    assert torch.equal(headless(pictures()), model.latent(pictures()))


@pytest.mark.parametrize(
    ("of_the_file", "gone"),
    [({"head_hidden": 24}, 4), ({"fine_tune_from": 3}, 4), ({"pre_logits": 24}, 4), ({"distilled": True}, 5)],
)
def test_any_head_is_dropped_for_a_model_without_one(of_the_file: dict, gone: int):
    source, headless = randomized(ours(**of_the_file)), ours(num_classes=0)
    report = load_weights(headless, Weights(source.state_dict()))
    assert len(report.unexpected) == gone
    if not of_the_file.keys() & {"distilled", "pre_logits"}:
        assert torch.equal(headless(pictures()), source.latent(pictures()))


def test_features_equal_timms():
    ours_, theirs = pair("fastvit_t8")
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours_.latent(x), theirs.forward_head(theirs.forward_features(x), pre_logits=True))
    vit = timm_vit(num_classes=0)
    assert isinstance(vit, timm.models.VisionTransformer)
    model = ours(num_classes=0)
    model.load_state_dict(vit.state_dict())
    torch.testing.assert_close(model.latent(pictures()), vit(pictures()), atol=1e-5, rtol=1e-5)


def test_calling_the_place_with_images_is_refused():
    with pytest.raises(UsageError, match=r"not \(2, 3, 32, 32\)") as caught:
        ours(**TINY).to_latent(pictures())
    assert "model.latent(images)" in caught.value.help
