"""Average precision, thresholds and F1 of any number of classes, against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve

from tests.evaluators.conftest import MakeSetting, Pixels, pixels, source
from vitcli.data.crops import Crops
from vitcli.data.source import ArrayImages
from vitcli.errors import DataError
from vitcli.evaluators.knn import Knn
from vitcli.evaluators.multilabel import MultiLabel, average_of_crops
from vitcli.evaluators.operating_points import average_precision, best_threshold
from vitcli.evaluators.top1 import Top1


def several(num_images: int = 60, num_classes: int = 5) -> ArrayImages:
    """Noise with random labels; no image has the last class."""
    images = source(num_images, num_classes)
    targets = np.random.default_rng(1).random((num_images, num_classes)) < 0.3
    targets[:, -1] = False
    return ArrayImages(images.pixels, targets, images.class_names, "noise")


@pytest.mark.parametrize("num_values", [2, 7, 10_000])
def test_average_precision_is_scikit_learns_with_and_without_ties(num_values: int):
    rng = np.random.default_rng(num_values)
    for _ in range(20):
        scores = rng.integers(0, num_values, 50).astype(np.float32)
        has = rng.random(50) < 0.3
        has[0] = True
        assert average_precision(scores, has) == pytest.approx(average_precision_score(has, scores))


@pytest.mark.parametrize("num_values", [3, 1000])
def test_no_threshold_has_a_better_f1(num_values: int):
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = (rng.integers(0, num_values, 50) / num_values).astype(np.float32)
        has = rng.random(50) < scores + 0.1
        has[0] = True
        precision, recall, _ = precision_recall_curve(has, scores)
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
        threshold = best_threshold(scores, has)
        assert f1_score(has, scores >= threshold) == pytest.approx(best)
        assert 0 <= threshold <= 1


def test_numbers_are_scikit_learns(setting: MakeSetting):
    torch.manual_seed(0)
    images, network = several(), Pixels(5).eval()
    evaluator = MultiLabel(setting(images, task="multilabel"))
    numbers = evaluator(network)
    with torch.no_grad():
        logits = network.head(pixels(images)).numpy()
    has = images.targets[:, :4]
    assert numbers["mAP"] == pytest.approx(100 * average_precision_score(has, logits[:, :4], average="macro"))
    thresholds = evaluator.findings()["thresholds"]
    assert thresholds[4] == 0.5, "no image has the class"
    predicted = 1 / (1 + np.exp(-logits[:, :4].astype(np.float64))) >= thresholds[:4]
    for average in ("micro", "macro"):
        assert numbers[f"f1_{average}"] == pytest.approx(100 * f1_score(has, predicted, average=average))
    for column, name in enumerate("abcd"):
        assert numbers[f"f1.{name}"] == pytest.approx(100 * f1_score(has[:, column], predicted[:, column]))
        assert numbers[f"positives.{name}"] == has[:, column].sum()
    assert "ap.e" not in numbers
    assert (numbers["num_images"], numbers["num_classes"]) == (60, 4)
    rows = dict(evaluator.rows(numbers))
    assert "4 of 5 classes" in rows["mAP"]
    assert "  e" not in rows


def test_later_the_stored_thresholds_are_used(setting: MakeSetting):
    torch.manual_seed(0)
    images, network = several(), Pixels(5).eval()
    known = setting(images, task="multilabel")
    for findings, thresholds, said in (
        ({"thresholds": [0.3, 0.4, 0.5, 0.6, 0.7]}, [0.3, 0.4, 0.5, 0.6, 0.7], "stored with the network"),
        ({}, [0.5] * 5, "none are stored"),
    ):
        evaluator = MultiLabel(replace(known, findings=findings))
        numbers = evaluator(network)
        assert [numbers[f"threshold.{name}"] for name in "abcde"] == thresholds
        assert evaluator.findings() == {}
        assert said in dict(evaluator.rows(numbers))["thresholds"]
    with pytest.raises(DataError, match="are not 5 numbers"):
        MultiLabel(replace(known, findings={"thresholds": [0.5]}))


def test_one_class_per_image_counts_as_any_number(setting: MakeSetting):
    torch.manual_seed(0)
    images, network = source(40, 3), Pixels(3).eval()
    numbers = MultiLabel(setting(images))(network)
    with torch.no_grad():
        logits = network.head(pixels(images)).numpy()
    expected = average_precision_score(np.eye(3)[images.targets], logits, average="macro")
    assert numbers["mAP"] == pytest.approx(100 * expected)


def test_many_crops(setting: MakeSetting):
    """At scale 1, five crops of a square image are five times the image."""
    torch.manual_seed(0)
    images, network = several(), Pixels(5).eval()
    alone = MultiLabel(setting(images))(network)
    for average in ("prob", "logit"):
        found = MultiLabel(setting(images, crops=Crops("5", (1.0,), average)))(network)
        assert found["single_crop_mAP"] == found["mAP"] == pytest.approx(alone["mAP"])
    logits = torch.tensor([[[0.0], [2.0], [-1.0]]])
    assert average_of_crops(logits, "logit").item() == pytest.approx(1 / 3)
    assert average_of_crops(logits, "prob").sigmoid().item() == pytest.approx(logits.sigmoid().mean().item())


def test_what_is_refused(setting: MakeSetting):
    images = several()
    nothing = ArrayImages(images.pixels, np.zeros_like(images.targets), images.class_names, "noise")
    with pytest.raises(DataError, match="no validation image has any class"):
        MultiLabel(setting(nothing))
    with pytest.raises(DataError, match="top1 needs one class per image") as error:
        Top1(setting(images))
    assert "--evaluate multilabel" in error.value.help
    with pytest.raises(DataError, match="knn needs one class per image"):
        Knn(setting(source(9, 2), images))
