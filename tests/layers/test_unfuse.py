"""Un-fusing: timm's fused networks in a form that trains, equal in evaluation and still themselves in training mode."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

from tests.models.oracle import images, pair
from tests.support.tensors import randomized
from vitcli.errors import WeightsError
from vitcli.layers.reparam import reparameterize
from vitcli.layers.unfuse import input_shift, new_norms, settle_norms, unfuse
from vitcli.models.fastvit import FastViT
from vitcli.models.registry import create_model


def tiny(seed: int) -> FastViT:
    """Every kind of block once."""
    torch.manual_seed(seed)
    return FastViT(depths=(1, 1, 1), dim=32, mlp_ratio=2, attention=True, num_classes=5)


def smooth(count: int, seed: int) -> Tensor:
    """Images that resemble each other."""
    return F.interpolate(images(count, 3, 12, 12, seed=seed), scale_factor=4.0, mode="bilinear")


def trained(model: FastViT) -> FastViT:
    """With the statistics of such images."""
    randomized(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average of all batches
    with torch.no_grad():
        for seed in range(3):
            model.train()(smooth(32, seed))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


@pytest.mark.parametrize(("name", "fold"), [("fastvit_t8", "standard"), ("fastvit_sa12", "full")])
def test_it_computes_what_timms_fused_network_computes(name, fold):
    _, theirs = pair(name)
    theirs = reparameterize_model(theirs)
    fresh = create_model(name, num_classes=10)
    fused = reparameterize(fresh)
    fused.load_state_dict(theirs.state_dict())
    fused = reparameterize(fused, fold=fold)
    before = deepcopy(fused.state_dict())

    model = unfuse(fused, into=fresh).eval()
    settle_norms(model, [smooth(4, seed=0)])
    assert model.state_dict().keys() == fresh.state_dict().keys()
    assert not new_norms(model)
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        assert expected.abs().max() > 0.3
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(fused.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(reparameterize(model, fold=fold).state_dict(), before, atol=1e-5, rtol=1e-5)


def distance(model: nn.Module, x: Tensor) -> float:
    """Of the logits in training mode from those in eval mode, in units of their spread over the images."""
    model = deepcopy(model)
    with torch.no_grad():
        logits = model.eval()(x)
        return float((model.train()(x) - logits).std() / logits.std(0).mean())


@pytest.mark.parametrize("fold", ["standard", "full"])
def test_settled_it_is_the_same_in_training_mode(fold):
    """As near as the network was that was fused; and far without."""
    source = trained(tiny(seed=0))
    model = unfuse(reparameterize(source, fold=fold), into=tiny(seed=1))
    x = smooth(32, seed=10)
    usual, unsettled = distance(source, x), distance(model, x)
    settle_norms(model, [smooth(32, seed) for seed in (11, 12)])
    assert distance(model, x) < 1.5 * usual
    assert unsettled > 3 * usual


def test_known_statistics_stay():
    source = trained(tiny(seed=0))
    model = unfuse(reparameterize(source), into=tiny(seed=1))
    settle_norms(model, [smooth(4, seed=1)])
    known = [key for key in source.state_dict() if ".mlp.conv.bn." in key or key.endswith("blocks.0.norm.running_mean")]
    assert len(known) == 3 * 5 + 1
    for key in known:
        torch.testing.assert_close(model.state_dict()[key], source.state_dict()[key], rtol=0, atol=0)


def test_every_branch_learns():
    model = unfuse(reparameterize(trained(tiny(seed=0)), fold="full"), into=tiny(seed=1))
    settle_norms(model, [smooth(32, seed) for seed in (11, 12)])
    before = deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1, momentum=0.9)
    x, labels, losses = smooth(32, seed=10), torch.arange(32) % 5, []
    for _ in range(15):
        optimizer.zero_grad()
        losses.append(F.cross_entropy(model(x), labels))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    stayed = before.keys() - moved - {name for name, _ in model.named_buffers()}
    assert not [name for name in stayed if not name.endswith(".bias")]  # the next norm takes a bias away
    assert before["stem.0.conv_scale.bn.weight"].abs().max() == 0


def test_statistics_are_those_of_all_batches_together():
    x = 1000 + torch.randn(7, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    norm = nn.BatchNorm2d(4)
    settle_norms(norm, [x[:1], x[1:4], x[4:]])
    var, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(norm.running_mean, mean.float())
    torch.testing.assert_close(norm.running_var, var.float())
    torch.testing.assert_close(norm.eval()(x), x / (1 + norm.eps) ** 0.5, rtol=1e-6, atol=1e-3)


def test_a_bias_that_is_not_from_a_norm_is_refused():
    linear = nn.Linear(4, 12)
    with torch.no_grad():
        linear.bias.copy_(linear.weight @ torch.tensor([1.0, -2.0, 0.0, 3.0]))
        torch.testing.assert_close(input_shift(linear), torch.tensor([1.0, -2.0, 0.0, 3.0]))
        linear.bias[0] += 1
        with pytest.raises(WeightsError, match="bias of queries"):
            input_shift(linear)
