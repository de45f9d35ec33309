"""Features are what stands before the head of a model, the same with and without a head."""

import pytest
import timm
import torch
from torch import nn

from tests.evaluators.conftest import MakeSetting, Pixels, pixels, source
from vitcli.errors import DivergedError
from vitcli.evaluators.images import EvalImages, all_features, features
from vitcli.models.registry import create_model


@pytest.mark.parametrize(
    ("ours", "theirs", "side", "options"),
    [
        ("fastvit_t8", "fastvit_t8", 64, {}),
        ("vit_ti_patch16", "vit_tiny_patch16_224", 32, {"img_size": 32}),
    ],
)
def test_same_features_as_timm(ours: str, theirs: str, side: int, options: dict):
    torch.manual_seed(0)
    reference = timm.create_model(theirs, num_classes=10, **options).eval()
    network = create_model(ours, num_classes=10, img_size=side).eval()
    network.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected = reference.forward_head(reference.forward_features(images), pre_logits=True)
        found = features(network, images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not network.to_latent._forward_hooks, "the hook is removed"


@pytest.mark.parametrize("name", ["fastvit_t8", "vit_ti_patch16", "fvit"])
def test_same_without_a_head(name: str):
    torch.manual_seed(0)
    whole = create_model(name, num_classes=10, img_size=64).eval()
    headless = create_model(name, num_classes=0, img_size=64).eval()
    headless.load_state_dict({k: v for k, v in whole.state_dict().items() if k in headless.state_dict()})
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(features(whole, images), headless(images))
        assert torch.equal(features(nn.Sequential(headless), images), headless(images))


def test_every_image_in_order(setting: MakeSetting):
    images = source(23, 4)
    torch.testing.assert_close(all_features(EvalImages(setting(images), images), Pixels()), pixels(images))


def test_infinite_features_are_refused(setting: MakeSetting):
    class Overflow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) * torch.inf

    images = source(5, 2)
    with pytest.raises(DivergedError, match="NaN or infinite"):
        all_features(EvalImages(setting(images), images), Overflow())
