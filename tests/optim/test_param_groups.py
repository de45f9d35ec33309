"""Groups against timm's: what is decayed, how fast each layer learns; and groups of a task."""

import pytest
import timm
import timm.optim
import torch
from torch import nn

from vitcli.errors import UsageError
from vitcli.models.registry import create_model
from vitcli.optim.param_groups import param_groups

SMALL_VIT = {"img_size": 32, "num_classes": 5, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}


def spared(groups: list[dict]) -> set[str]:
    return {name for group in groups if not group["weight_decay"] for name in group["names"]}


def test_auto_filter_is_timms():
    """`auto` spares the parameters that timm spares; layer scales (C, 1, 1) are decayed (20 of 20 for T8)."""
    model = create_model("fastvit_t8", num_classes=10)
    groups = param_groups(model, weight_decay=0.05, weight_decay_filter="auto")
    theirs = timm.optim.param_groups_weight_decay(model, 0.05)
    sizes = {group["weight_decay"]: len(group["params"]) for group in theirs}
    assert {group["weight_decay"]: len(group["params"]) for group in groups} == sizes
    decayed = next(group["names"] for group in groups if group["weight_decay"])
    assert sum("gamma" in name for name in decayed) == 20


@pytest.mark.parametrize("filter", ["auto", "norm_and_bias"])
def test_tokens_and_positions_of_a_vit_are_spared(filter: str):
    """As timm spares them with the names its ViT lists; by shape alone, they would decay."""
    theirs = timm.create_model("vit_tiny_patch16_224", **SMALL_VIT, reg_tokens=2)
    listed = {*theirs.no_weight_decay(), "reg_token"}
    names = {id(p): name for name, p in theirs.named_parameters()}
    their_groups = timm.optim.param_groups_weight_decay(theirs, 0.05, no_weight_decay_list=listed)
    expected = {names[id(p)] for group in their_groups if not group["weight_decay"] for p in group["params"]}
    ours = create_model("vit_ti_patch16", **SMALL_VIT, reg_tokens=2)
    assert spared(param_groups(ours, weight_decay=0.05, weight_decay_filter=filter)) == expected


def test_filters():
    model = create_model("fastvit_sa12", num_classes=10)
    total = len(list(model.parameters()))
    groups = {
        filter: param_groups(model, weight_decay=1.0, weight_decay_filter=filter)
        for filter in ("disable", "auto", "norm_and_bias")
    }
    assert [len(group["params"]) for group in groups["disable"]] == [total]
    kinds = dict(model.named_modules())
    assert spared(groups["norm_and_bias"])
    for name in spared(groups["norm_and_bias"]):
        norm = isinstance(kinds[name.rpartition(".")[0]], nn.modules.batchnorm._NormBase)
        assert name.endswith("bias") or norm
    for chosen in groups.values():
        assert sum(len(group["params"]) for group in chosen) == total


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12"])
def test_layer_decay_is_timms(name: str):
    """Every parameter of FastViT has timm's factor."""
    theirs = timm.create_model(name, num_classes=10)
    names = {id(p): n for n, p in theirs.named_parameters()}
    groups = timm.optim.param_groups_layer_decay(theirs, layer_decay=0.7)
    expected = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert factors(create_model(name, num_classes=10)) == pytest.approx(expected)


@pytest.mark.parametrize("pool", [{}, {"global_pool": "avg", "class_token": False}], ids=str)
def test_layer_decay_of_a_vit_is_timms(pool: dict):
    shape = SMALL_VIT | pool
    theirs = timm.create_model("vit_tiny_patch16_224", **shape, reg_tokens=2)
    names = {id(p): n for n, p in theirs.named_parameters()}
    groups = timm.optim.param_groups_layer_decay(theirs, layer_decay=0.7)
    expected = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    ours = factors(create_model("vit_ti_patch16", **shape, reg_tokens=2))
    assert ours == pytest.approx(expected)
    assert ours["pos_embed"] == pytest.approx(0.7**4)


def factors(task: nn.Module) -> dict[str, float]:
    groups = param_groups(task, weight_decay=0.05, weight_decay_filter="auto", layer_decay=0.7)
    return {name: group["lr_factor"] for group in groups for name in group["names"]}


def test_layer_decay_needs_layers():
    with pytest.raises(UsageError, match="Linear does not tell its layers"):
        param_groups(nn.Linear(2, 2), weight_decay=0.1, weight_decay_filter="auto", layer_decay=0.5)


class Learner(nn.Module):
    """A task: a network, a projector that learns twice as fast, and a target that does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.network = create_model("vit_ti_patch16", **SMALL_VIT)
        self.projector = nn.Sequential(nn.Linear(24, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 2, 3))  # the network's list does not apply to this one
        self.target = create_model("vit_ti_patch16", **SMALL_VIT).requires_grad_(False)

    def lr_factor(self, name: str) -> float:
        return 2.0 if name.startswith("projector.") else 1.0


def test_a_task_is_judged_by_its_network():
    """The network's parameters are treated as if it were alone; the others belong to the top layer."""
    task = Learner()
    own = {"pos_embed", *(f"projector.{n}" for n, _ in task.projector.named_parameters())}
    alone = {f"network.{name}": factor for name, factor in factors(task.network).items()}
    assert factors(task) == {**alone, **{n: 2.0 if n.startswith("projector.") else 1.0 for n in own}}
    for filter in ("auto", "norm_and_bias"):
        keys = {"weight_decay": 0.05, "weight_decay_filter": filter}
        network = {f"network.{name}" for name in spared(param_groups(task.network, **keys))}
        spared_own = {"projector.0.bias", "projector.1.weight", "projector.1.bias", "projector.2.bias"}
        assert spared(param_groups(task, **keys)) == network | spared_own
