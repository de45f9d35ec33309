"""The losses of any number of classes per image against timm's and torchvision's, on the same logits."""

import pytest
import timm.loss
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from vitcli.data.batch import Batch
from vitcli.data.mixing import mix_targets
from vitcli.errors import RecipeError
from vitcli.recipe.load import load_recipe
from vitcli.tasks.multilabel import MultiLabel, asymmetric_loss

torch.manual_seed(0)
LOGITS = 3 * torch.randn(6, 5)
TARGETS = torch.rand(6, 5) < 0.4


def loss(targets: torch.Tensor = TARGETS, **keys: object) -> torch.Tensor:
    """The loss of a recipe with these keys, for a network whose output is `LOGITS`."""
    task = MultiLabel(load_recipe(None, task="multilabel", **keys), nn.Identity(), list("abcde"))
    return task(Batch((LOGITS,), targets, torch.arange(6))).loss


def test_binary_cross_entropy_by_either_name():
    expected = F.multilabel_soft_margin_loss(LOGITS, TARGETS.float())
    for name in ("CE", "BCE"):
        assert loss(loss=name).item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss(bce_sum=True).item() == pytest.approx(5 * expected.item(), rel=1e-6)


def test_label_smoothing_is_over_yes_and_no():
    smoothed = torch.where(TARGETS, 0.95, 0.05)
    expected = timm.loss.BinaryCrossEntropy(smoothing=0.0)(LOGITS, smoothed)
    assert loss(label_smoothing=0.1).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), [(4, 0, 0.05), (4, 1, 0.05), (2, 2, 0.0), (0, 0, 0.2)])
def test_the_asymmetric_loss_and_its_gradient_are_timms(gamma_neg: float, gamma_pos: float, clip: float):
    ours, theirs = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    gammas = {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip}
    found = asymmetric_loss(ours, TARGETS.float(), **gammas)
    expected = timm.loss.AsymmetricLossMultiLabel(**gammas)(theirs, TARGETS.float())
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    found.backward(), expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_without_clip_it_is_the_focal_loss():
    expected = sigmoid_focal_loss(LOGITS, TARGETS.float(), alpha=-1, gamma=2, reduction="sum") / 6
    keys = {"asl_gamma_neg": 2, "asl_gamma_pos": 2, "asl_clip": 0}
    assert loss(loss="ASL", **keys).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
def test_the_asymmetric_loss_is_finite_for_certain_answers(gamma: float, clip: float):
    logits = torch.tensor([[100.0, -100.0, 100.0, -100.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    asymmetric_loss(logits, targets, gamma_neg=gamma, gamma_pos=gamma, clip=clip).backward()
    assert logits.grad.isfinite().all()


def test_mixed_targets_are_those_of_both_images():
    mixed = mix_targets(TARGETS, 5, 0.7)
    expected = 0.7 * TARGETS.float() + 0.3 * TARGETS.flip(0).float()
    torch.testing.assert_close(mixed, expected)
    both = (TARGETS | TARGETS.flip(0)).float()
    assert loss(mixed, bce_target_thresh=0).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(LOGITS, both).item(), rel=1e-6
    )
    assert loss(mixed, loss="ASL").isfinite()


def test_one_class_per_image_is_the_same_as_before():
    one_hot = F.one_hot(torch.tensor([0, 4, 2, 2, 1, 3]), 5).bool()
    torch.testing.assert_close(mix_targets(one_hot, 5, 0.6), mix_targets(one_hot.int().argmax(1), 5, 0.6))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"loss": "ASL"}, "`loss: ASL` is for any number of classes per image"),
        ({"task": "multilabel", "label_smoothing": 0.4, "bce_target_thresh": 0.1}, "all targets would become 1"),
        ({"task": "multilabel", "loss": "ASL", "asl_clip": 1}, "asl_clip"),
    ],
)
def test_recipes_that_are_refused(keys: dict[str, object], said: str):
    with pytest.raises(RecipeError, match=said):
        load_recipe(None, **keys)


def test_keys_without_effect():
    assert "`asl_clip` has no effect without `loss: ASL`" in load_recipe(task="multilabel", asl_clip=0.1).notes
    notes = load_recipe(task="multilabel", loss="ASL", bce_sum=True, projector_dim=8).notes
    assert any("`bce_sum` has no effect" in note for note in notes)
    assert any("`projector_dim` has no effect with `task: multilabel`" in note for note in notes)
    assert not load_recipe(task="multilabel", bce_sum=True).notes
