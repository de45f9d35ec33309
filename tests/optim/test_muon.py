"""Muon against torch's on matrices, timm's on convolutions, and a singular value decomposition; what it trains."""

import copy

import pytest
import timm.optim
import torch
from torch import nn

from vitcli.models.registry import create_model
from vitcli.optim import muon
from vitcli.optim.optimizers import build_optimizer
from vitcli.optim.param_groups import param_groups
from vitcli.recipe.schema import Optimizer as Section

CPU = torch.device("cpu")

#: FastViT's 1x1 convolution of the image, (48, 3): too narrow for timm's rule
STEM = {"stem.0.conv_scale.conv.weight"}


def build(network: nn.Module, **keys: object) -> torch.optim.Optimizer:
    groups = param_groups(network, weight_decay=0.1, weight_decay_filter="auto")
    return build_optimizer(Section(opt="muon", **keys), groups, CPU, network)


def step_both(ours: torch.optim.Optimizer, net: nn.Module, theirs: list[torch.optim.Optimizer], twin: nn.Module):
    """One step of each with the same random gradients."""
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
    for optimizer in (ours, *theirs):
        optimizer.step()


def test_matrices_equal_torchs_and_the_rest_adamw(monkeypatch):
    """In torch's bfloat16: matrices of equal shape (one batch here), wide and tall ones; biases and a norm."""
    monkeypatch.setattr(muon, "working_dtype", lambda device: torch.bfloat16)
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(*shape) for shape in [(8, 8), (8, 8), (8, 20), (20, 8)]), nn.LayerNorm(8))
    twin = copy.deepcopy(net)
    ours = build(net, momentum=0.95)
    rest = [p for p in twin.parameters() if p.ndim < 2]
    matrices = [p for p in twin.parameters() if p.ndim == 2]
    theirs = torch.optim.Muon(matrices, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, weight_decay=0.0)
    for lr in (0.01, 0.02, 0.005):
        for group in (*ours.param_groups, *theirs.param_groups, *adamw.param_groups):
            group["lr"] = lr
        step_both(ours, net, [theirs, adamw], twin)
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-6), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_convolutions_equal_timms(dtype: torch.dtype, monkeypatch):
    """Flattened to (out, in * kh * kw), grouped ones too; float32 gives the same step without bfloat16's noise."""
    monkeypatch.setattr(muon, "working_dtype", lambda device: dtype)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 24, 5, groups=2))
    for conv in net:
        conv.register_parameter("bias", None)
    twin = copy.deepcopy(net)
    ours = build(net)
    theirs = timm.optim.Muon(
        twin.parameters(),
        lr=0.01,
        weight_decay=0.1,
        momentum=0.9,
        nesterov=True,
        conv_mode="flatten",
        ns_coefficients="original",
        adjust_lr_fn="match_rms_adamw",
        normalize_spatial=False,
    )
    for group in ours.param_groups:
        group["lr"] = 0.01
    for _ in range(3):
        step_both(ours, net, [theirs], twin)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-6 if dtype is torch.bfloat16 else 5e-4)


def test_orthogonalize_acts_on_singular_values():
    """U S V^T becomes U f(S) V^T with f the polynomial, five times, of s / |s|; in float64 by decomposition."""
    torch.manual_seed(0)
    x = torch.randn(3, 8, 20)
    u, s, vh = torch.linalg.svd(x.double(), full_matrices=False)
    s = s / s.square().sum(1, keepdim=True).sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    assert torch.allclose(muon.orthogonalize(x).double(), u @ torch.diag_embed(s) @ vh, atol=1e-5)
    assert 0.6 < s.min() < s.max() < 1.3


@pytest.mark.parametrize(
    ("name", "classifiers", "share"),
    [("fastvit_t8", "head.fc", 76.1), ("fastvit_sa12", "head.fc", 88.5), ("vit_ti_patch16", "head", 95.4)],
)
def test_trains_what_timms_would_without_the_classifier(name: str, classifiers: str, share: float):
    """timm's rule about shapes chooses the same, plus the classifier, minus a matrix with fewer than four columns."""
    from timm.optim.muon import _is_suitable_for_muon

    model = create_model(name, num_classes=1000)
    suitable = {n for n, p in model.named_parameters() if _is_suitable_for_muon(p)}
    expected = suitable - {f"{classifiers}.weight"} | STEM & {n for n, _ in model.named_parameters()}
    optimizer = build(model)
    chosen = {n for group in optimizer.param_groups if group["muon"] for n in group["names"]}
    assert chosen == expected
    assert optimizer.describe() == f"muon trains {share} % of the parameters, adamw the rest"  # type: ignore[attr-defined]


class TwoHeads(nn.Module):
    """A network with positions, an embedding and attention of torch's own, and a classifier after a hidden layer."""

    classifiers = ("head.1",)

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(4, 8))
        self.words = nn.Embedding(5, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
        self.fine_tune = nn.Linear(3, 3)


def test_a_task_is_judged_by_its_network():
    """Names get a prefix in a task; its own layers, a projector's, are hidden ones."""
    task = nn.Module()
    task.network, task.projector = TwoHeads(), nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    chosen = {n for group in build(task).param_groups if group["muon"] for n in group["names"]}
    attention = {"network.attention.in_proj_weight", "network.attention.out_proj.weight"}
    assert chosen == {*attention, "network.head.0.weight", "projector.0.weight"}
    alone = {n for group in build(task.network).param_groups if group["muon"] for n in group["names"]}
    assert alone == {"attention.in_proj_weight", "attention.out_proj.weight", "head.0.weight"}
