"""Frozen parts get no gradient and do not change, statistics included; wrong names are reported."""

import copy

import pytest
import timm
import torch
from torch import nn

from vitcli.errors import UsageError
from vitcli.models.registry import create_model
from vitcli.optim.freeze import freeze

SMALL_VIT = {"img_size": 32, "num_classes": 5, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


def trained(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def step(model: nn.Module) -> None:
    """One step of plain descent in training mode."""
    model.train()
    torch.manual_seed(1)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p.sub_(0.1 * p.grad)


def test_backbone():
    """Only the head changes; BatchNorm uses and keeps its statistics, so the features are those of eval mode."""
    torch.manual_seed(0)
    model = create_model("fastvit_t8", num_classes=5, img_size=32)
    said = freeze(model, "backbone")
    assert trained(model) == {"head.fc.weight", "head.fc.bias"}
    weights = sum(p.numel() for p in model.parameters())
    assert said == f"freeze   {model.head.fc.weight.numel() + 5:,} of {weights:,} parameters train"
    before = copy.deepcopy(model.state_dict())
    features = model.eval().forward_features(torch.ones(2, 3, 32, 32))
    step(model)
    assert torch.allclose(model.forward_features(torch.ones(2, 3, 32, 32)), features, atol=1e-6)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"head.fc.weight", "head.fc.bias"}
    assert all(p.grad is None for key, p in model.named_parameters() if not key.startswith("head."))


def test_backbone_of_a_distilled_vit_with_a_fine_tuning_layer():
    model = create_model("vit_ti_patch16", **SMALL_VIT, distilled=True, fine_tune_from=3, head_hidden=7)
    freeze(model, "backbone")
    heads = {
        f"{head}.{layer}.{kind}" for head in ("head", "head_dist") for layer in (0, 2) for kind in ("weight", "bias")
    }
    assert trained(model) == heads | {"fine_tune.weight", "fine_tune.bias"}


def test_all_but_attention_is_the_authors():
    """The same parameters train as in the authors' loop (deit/main.py, --attn-only) over timm's model."""
    theirs = timm.create_model("vit_tiny_patch16_224", **SMALL_VIT)
    for name, p in theirs.named_parameters():
        p.requires_grad = ".attn." in name
    theirs.head.requires_grad_(True)
    theirs.pos_embed.requires_grad_(True)
    theirs.patch_embed.requires_grad_(False)
    ours = create_model("vit_ti_patch16", **SMALL_VIT)
    freeze(ours, "all_but_attention")
    assert trained(ours) == trained(theirs)
    mixed = create_model("fastvit_sa12", num_classes=5)
    freeze(mixed, "all_but_attention")
    assert {name.split(".")[-2] for name in trained(mixed)} == {"qkv", "proj", "fc"}
    with pytest.raises(UsageError, match="no attention"):
        freeze(create_model("fastvit_t8", num_classes=5), "all_but_attention")


def test_regexes_freeze_a_part():
    """The stem and one stage keep their weights and statistics; all other parts change."""
    torch.manual_seed(0)
    model = create_model("fastvit_t8", num_classes=5, img_size=32)
    freeze(model, [r"^stem\.", r"stages\.1"])
    before = copy.deepcopy(model.state_dict())
    step(model)
    for name, p in model.named_parameters():
        assert (p.grad is None) == name.startswith(("stem.", "stages.1.")), name
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name]) == name.startswith(("stem.", "stages.1.")), name


def test_copies_hold_their_own_statistics():
    """A copy (such as the moving average) can be put into training mode without changing the original."""
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    freeze(model, ["^0"])
    twin = copy.deepcopy(model)
    model[0].training = True
    twin.train()
    assert not twin[0].training
    assert twin[1].training
    assert model[0].training


def test_mistakes():
    model = create_model("fastvit_t8", num_classes=5)
    with pytest.raises(UsageError, match=r"'\^steem' matches no parameter name") as error:
        freeze(model, ["head", "^steem"])
    assert "stem." in error.value.help
    with pytest.raises(UsageError, match="nothing to train"):
        freeze(model, ["."])
