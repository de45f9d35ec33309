"""Each image's answer and what follows for each class, against scikit-learn and torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tests.evaluators.conftest import MakeSetting, Pixels, pixels, source
from vitcli.errors import DivergedError
from vitcli.evaluators.answers import Collector, ImageAnswers, MultiLabelAnswers
from vitcli.evaluators.top1 import Top1


def random_answers(num_images: int = 60, num_classes: int = 5) -> ImageAnswers:
    """The last class has no image and is never predicted."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(num_images, num_classes)).astype(np.float32)
    logits[:, -1] = -20
    names = [f"{index}.png" for index in range(num_images)]
    return ImageAnswers(names, [*"abcde"], generator.integers(0, num_classes - 1, num_images), logits)


def test_against_torch():
    answers = random_answers()
    logits, labels = torch.from_numpy(answers.logits), torch.from_numpy(answers.targets)
    torch.testing.assert_close(torch.from_numpy(answers.probabilities), logits.softmax(1))
    torch.testing.assert_close(torch.from_numpy(answers.confidence), logits.softmax(1).amax(1))
    of_truth = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(torch.from_numpy(answers.target_probability), of_truth)
    losses = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(torch.from_numpy(answers.losses).float(), losses)
    assert (torch.from_numpy(answers.top(3)) == logits.topk(3).indices).all()
    assert answers.top(9).shape == (60, 5)


def test_losses_of_large_logits_are_finite():
    answers = ImageAnswers(["a"], ["x", "y"], np.array([0]), np.array([[-3e4, 3e4]], dtype=np.float32))
    assert answers.losses.tolist() == [6e4]


def test_classes_against_scikit_learn():
    answers = random_answers()
    expected = confusion_matrix(answers.targets, answers.predicted, labels=range(5))
    assert (answers.confusion() == expected).all()
    precision, recall, f1, support = precision_recall_fscore_support(
        answers.targets, answers.predicted, labels=range(5), zero_division=np.nan
    )
    for number, one in enumerate(answers.per_class()):
        assert one.name == "abcde"[number]
        assert one.num_images == support[number]
        for found, wanted in ((one.recall, recall), (one.precision, precision), (one.f1, f1)):
            assert (np.nan if found is None else found) == pytest.approx(wanted[number], nan_ok=True)
        if one.num_images:
            interval = binomtest(one.num_hits, one.num_images).proportion_ci(0.95, method="wilson")
            assert one.recall95 == pytest.approx((interval.low, interval.high))
            assert one.f1_95[0] <= one.f1 <= one.f1_95[1]


def test_multi_label_against_scikit_learn():
    generator = np.random.default_rng(0)
    targets, logits = generator.random((50, 3)) < 0.3, generator.normal(size=(50, 3)).astype(np.float32)
    thresholds = np.array([0.3, 0.5, 0.7])
    answers = MultiLabelAnswers([""] * 50, [*"abc"], targets, logits, thresholds)
    predicted = torch.from_numpy(logits).double().sigmoid().numpy() >= thresholds
    precision, recall, f1, support = precision_recall_fscore_support(targets, predicted)
    for number, one in enumerate(answers.per_class()):
        assert (one.recall, one.precision, one.f1) == pytest.approx((recall[number], precision[number], f1[number]))
        assert one.num_images == support[number]
    assert (answers.correct == (predicted == targets).all(1)).all()


def test_temperature_changes_no_prediction():
    answers = random_answers()
    hot = answers.with_temperature(2.0)
    assert (hot.predicted == answers.predicted).all()
    expected = torch.from_numpy(answers.logits).div(2).softmax(1)
    torch.testing.assert_close(torch.from_numpy(hot.probabilities), expected)


def test_collected_from_an_evaluation(setting: MakeSetting):
    images, net = source(23, 4), Pixels(4)
    made = setting(images)
    collect = Collector(images, made.world)
    numbers = Top1(made)(net, answers=collect)
    answers = collect.answers()
    assert answers.names == [f"noise[{index}]" for index in range(23)]
    assert (answers.targets == images.targets).all()
    torch.testing.assert_close(torch.from_numpy(answers.logits), net.head(pixels(images)).detach())
    assert answers.correct.sum() == numbers["correct1"]
    assert answers.losses.mean() == pytest.approx(numbers["nll"], rel=1e-6)
    chosen = answers.select(np.array([5, 2]))
    assert chosen.names == ["noise[5]", "noise[2]"]
    assert (chosen.logits == answers.logits[[5, 2]]).all()


def test_equal_logits_count_as_they_are_answered(setting: MakeSetting):
    """Of equal outputs the first class is the answer, in the count and in the list of answers."""
    images, net = source(40, 9), Pixels(9)
    torch.nn.init.zeros_(net.head.weight)
    torch.nn.init.zeros_(net.head.bias)
    made = setting(images)
    collect = Collector(images, made.world)
    numbers = Top1(made)(net, answers=collect)
    assert numbers["correct1"] == (images.targets == 0).sum() == collect.answers().correct.sum()


def test_outputs_that_are_not_finite(setting: MakeSetting):
    images, net = source(5, 2), Pixels(2)
    torch.nn.init.constant_(net.head.bias, float("nan"))
    made = setting(images)
    collect = Collector(images, made.world)
    Top1(made)(net, answers=collect)
    with pytest.raises(DivergedError):
        collect.answers()
