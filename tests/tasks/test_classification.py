"""The losses against timm's, on the same logits."""

import pytest
import timm.loss
import torch
import torch.nn.functional as F
from torch import nn

from vitcli.data.batch import Batch
from vitcli.errors import UsageError
from vitcli.recipe.load import load_recipe
from vitcli.tasks.classification import Classification

torch.manual_seed(0)
LOGITS = torch.randn(6, 5)
LABELS = torch.tensor([0, 4, 2, 2, 1, 3])
SOFT = 0.7 * F.one_hot(LABELS, 5).float() + 0.3 * F.one_hot(LABELS.flip(0), 5).float()


def loss(targets: torch.Tensor, **keys: object) -> torch.Tensor:
    """The loss of a recipe with these keys, for a network whose output is `LOGITS`."""
    task = Classification(load_recipe(None, **keys), nn.Identity(), list("abcde"))
    return task(Batch((LOGITS,), targets, torch.arange(6))).loss


def smoothed(targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    return targets * (1 - smoothing) + smoothing / 5


def test_cross_entropy():
    assert torch.allclose(loss(LABELS), F.cross_entropy(LOGITS, LABELS))
    theirs = timm.loss.LabelSmoothingCrossEntropy(0.1)(LOGITS, LABELS)
    assert torch.allclose(loss(LABELS, label_smoothing=0.1), theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_targets_are_smoothed_in_the_loss(smoothing: float):
    """timm folds the smoothing into mixup's targets; the sum is the same."""
    theirs = timm.loss.SoftTargetCrossEntropy()(LOGITS, smoothed(SOFT, smoothing))
    assert torch.allclose(loss(SOFT, label_smoothing=smoothing), theirs)


@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["labels", "mixed"])
def test_binary_cross_entropy(targets: torch.Tensor):
    """The targets are smoothed in the loss, mixed or not: 1 - s + s / C for the true class and s / C for the others."""
    theirs = timm.loss.BinaryCrossEntropy(smoothing=0.1)(LOGITS, targets if targets is LABELS else smoothed(SOFT, 0.1))
    torch.testing.assert_close(loss(targets, loss="BCE", label_smoothing=0.1), theirs)


@pytest.mark.parametrize("threshold", [None, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("sum_classes", [False, True])
@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["labels", "mixed"])
def test_binary_targets_and_the_sum_are_timms(threshold, sum_classes, targets):
    theirs = timm.loss.BinaryCrossEntropy(smoothing=0.1, target_threshold=threshold, sum_classes=sum_classes)
    ours = loss(targets, loss="BCE", label_smoothing=0.1, bce_target_thresh=threshold, bce_sum=sum_classes)
    assert torch.allclose(ours, theirs(LOGITS, targets if targets is LABELS else smoothed(SOFT, 0.1)))


WEIGHTS = (0.5, 3.0, 1.0, 0.2, 2.0)
ONE_HOT = F.one_hot(LABELS, 5).float()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_of_labels_are_torchs(smoothing: float):
    theirs = F.cross_entropy(LOGITS, LABELS, torch.tensor(WEIGHTS), label_smoothing=smoothing)
    keys = {"class_weights": WEIGHTS, "label_smoothing": smoothing}
    torch.testing.assert_close(loss(LABELS, **keys), theirs)
    torch.testing.assert_close(loss(ONE_HOT, **keys), theirs, msg="a label and its one-hot row are the same")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_of_mixed_targets_are_torchs_but_for_the_divisor(smoothing: float):
    """torch divides by the number of images, which is 6; ours by the sum of their weights."""
    theirs = F.cross_entropy(LOGITS, SOFT, torch.tensor(WEIGHTS), label_smoothing=smoothing)
    weights = [0.7 * WEIGHTS[a] + 0.3 * WEIGHTS[b] for a, b in zip(LABELS, LABELS.flip(0), strict=True)]
    ours = loss(SOFT, class_weights=WEIGHTS, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs * 6 / sum(weights))


@pytest.mark.parametrize("sum_classes", [False, True])
@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["labels", "mixed"])
def test_class_weights_of_bce_weigh_images(targets: torch.Tensor, sum_classes: bool):
    hot = ONE_HOT if targets is LABELS else SOFT
    of_images = hot @ torch.tensor(WEIGHTS)
    terms = F.binary_cross_entropy_with_logits(LOGITS, smoothed(hot, 0.1), of_images[:, None], reduction="sum")
    theirs = terms / of_images.sum() / (1 if sum_classes else 5)
    ours = loss(targets, loss="BCE", class_weights=WEIGHTS, label_smoothing=0.1, bce_sum=sum_classes)
    torch.testing.assert_close(ours, theirs)


def test_equal_class_weights_change_nothing():
    for keys in ({"loss": "CE"}, {"loss": "BCE"}, {"label_smoothing": 0.1}):
        for targets in (LABELS, SOFT):
            torch.testing.assert_close(loss(targets, class_weights=(2.0,) * 5, **keys), loss(targets, **keys))


def test_loss_is_fp32_under_autocast():
    task = Classification(load_recipe(None), nn.Linear(4, 5), list("abcde"))
    with torch.autocast("cpu", torch.bfloat16):
        output = task(Batch((torch.randn(3, 4),), torch.tensor([0, 1, 2]), torch.arange(3)))
    assert output.loss.dtype == torch.float32


def test_a_threshold_below_the_smoothed_targets_is_refused():
    """0.1 over 5 classes gives each 0.02."""
    keys = {"loss": "BCE", "label_smoothing": 0.1}
    with pytest.raises(
        UsageError, match=r"a target of 0\.02, and bce_target_thresh is 0\.01: all targets would become 1"
    ):
        loss(LABELS, bce_target_thresh=0.01, **keys)
    assert torch.isfinite(loss(LABELS, bce_target_thresh=0.03, **keys))


@pytest.mark.parametrize(("num_classes", "said"), [(5, ["with 5 classes, top5 is always 100"]), (6, [])])
def test_five_classes_have_no_top5(num_classes: int, said: list[str]):
    task = Classification(load_recipe(), nn.Identity(), [str(number) for number in range(num_classes)])
    assert task.notes(accumulation=1, world_size=1) == said
