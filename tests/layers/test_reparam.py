"""Folding: a new model, always in float32 or better, and the same however often it is done."""

import pytest
import torch
from torch import nn

from tests.models.oracle import images, pair
from tests.models.vit_oracles import ours, pictures
from tests.support.tensors import randomized
from vitcli.layers.attention import Attention
from vitcli.layers.mobileone import MobileOneBlock
from vitcli.layers.reparam import reparameterize
from vitcli.layers.transformer import Block
from vitcli.models.registry import create_model


@pytest.mark.parametrize("fold", ["standard", "full"])
def test_twice_is_once(fold):
    model, _ = pair("fastvit_sa12")
    before = {key: tensor.clone() for key, tensor in model.train().state_dict().items()}
    once = reparameterize(model, fold=fold)
    twice = reparameterize(once, fold=fold)
    assert model.training
    assert not once.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)  # the argument is not touched
    torch.testing.assert_close(twice.state_dict(), once.state_dict(), rtol=0, atol=0)


def test_full_after_standard_is_full():
    model, _ = pair("fastvit_sa12")
    full = reparameterize(model, fold="full")
    torch.testing.assert_close(reparameterize(reparameterize(model), fold="full").state_dict(), full.state_dict())
    left = [module for module in full.modules() if isinstance(module, nn.BatchNorm2d)]
    assert left == []
    assert not [key for key in full.state_dict() if "layer_scale" in key]


def test_bfloat16_is_folded_in_float32():
    model, _ = pair("fastvit_t8")
    rounded = model.bfloat16()
    fused = reparameterize(rounded)
    assert {parameter.dtype for parameter in fused.parameters()} == {torch.float32}
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), rounded.float()(x), atol=1e-5, rtol=0)


def test_norms_of_distributed_training_fold_too():
    model, _ = pair("fastvit_sa12")
    expected = reparameterize(model, fold="full").state_dict()
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    torch.testing.assert_close(reparameterize(synchronized, fold="full").state_dict(), expected)


def test_float64_stays():
    block = MobileOneBlock(4, 4, 3, groups=4).double().eval()
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(reparameterize(block)(x), block(x), atol=1e-12, rtol=0)


#: options added to the tiny ViT of the oracles, and how many tensors full folding removes besides the eight of norms
VITS = [
    ({}, 0),
    ({"qkv_bias": False, "layer_scale_init": 1.0}, 4 - 2),
    ({"global_pool": "avg", "patch_norm": True}, 2),
    ({"distilled": True, "reg_tokens": 2, "pre_logits": 24}, 0),
    ({"patch_embed": "spt", "attn_scale": "learned"}, 0),
]


@pytest.mark.parametrize(("options", "num_gone"), VITS)
def test_vit_in_full(options, num_gone):
    model = randomized(ours(**options))
    full = reparameterize(model, fold="full")
    assert len(full.state_dict()) == len(model.state_dict()) - 8 - num_gone
    assert not [key for key in full.state_dict() if ".norm1." in key or ".norm2." in key or ".ls" in key]
    for computed in (lambda net: net(pictures()), lambda net: net.forward_features(pictures())):
        with torch.no_grad():
            torch.testing.assert_close(computed(full), computed(model), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reparameterize(full, fold="full").state_dict(), full.state_dict(), rtol=0, atol=0)
    standard = reparameterize(model).state_dict()
    torch.testing.assert_close(standard, model.state_dict(), rtol=0, atol=0)


def test_modules_with_hooks_are_not_folded():
    model, seen = randomized(ours(layer_scale_init=1.0)), []
    model.blocks[0].mlp.act.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model.blocks[1].norm1.register_forward_hook(lambda module, inputs, output: seen.append(output))
    full = reparameterize(model, fold="full")
    with torch.no_grad():
        torch.testing.assert_close(full(pictures()), model(pictures()), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen[:2], seen[2:], atol=1e-5, rtol=1e-5)
    left = {key for key in full.state_dict() if "norm" in key or ".ls" in key}
    assert left == {
        "blocks.0.norm2.weight", "blocks.0.norm2.bias", "blocks.0.ls2.gamma",
        "blocks.1.norm1.weight", "blocks.1.norm1.bias", "norm.weight", "norm.bias",
    }  # fmt: skip


class ParallelBlock(Block):
    """Attention and MLP look at the same norm, which therefore is not the attention's to take."""

    def forward(self, x, visible=None, num_queries=None):
        return x + self.attn(self.norm1(x)) + self.mlp(self.norm1(x))


@pytest.mark.parametrize(
    "model",
    [
        lambda: ours(transformer=nn.Sequential(ParallelBlock(Attention(32, 2), 32))),
        lambda: ours(transformer="linformer", mlp_ratio=4.0),
        lambda: create_model("fvit", num_classes=5),
    ],
    ids=["block of a subclass", "linformer", "norms after residuals"],
)
def test_what_cannot_be_folded_stays(model):
    model = randomized(model())
    full = reparameterize(model, fold="full")
    torch.testing.assert_close(full.state_dict(), model.state_dict(), rtol=0, atol=0)
