"""Folding: a new model, always in float32 or better, and the same however often it is done."""

import pytest
import torch
from torch import nn

from tests.models.oracle import images, pair
from vitcli.layers.mobileone import MobileOneBlock
from vitcli.layers.reparam import reparameterize


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
