"""Weighted kNN against scikit-learn, against a table worked out by hand, and on raw pixels of the digits."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from tests.evaluators.conftest import MakeSetting, Pixels, Unlabeled, pixels, source
from vitcli.data.batch import Batch
from vitcli.data.datasets import Splits
from vitcli.errors import DataError
from vitcli.evaluators import knn
from vitcli.evaluators.knn import Knn, knn_votes


def test_votes_by_hand():
    """A circle: the query at 0 degrees, neighbors at 0, 60 and 90 degrees of classes 1, 0, 0; another at 180."""
    angles = torch.deg2rad(torch.tensor([60.0, 0.0, 180.0, 90.0]))
    bank, labels = torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([0, 1, 2, 0])
    votes = knn_votes(torch.tensor([[1.0, 0.0]]), bank, labels, num_classes=4, k=3, temperature=0.5)
    weights = {0: math.exp(0.5 / 0.5) + math.exp(0), 1: math.exp(1 / 0.5)}  # of the three nearest
    total = sum(weights.values())
    assert votes.tolist()[0] == pytest.approx([weights[0] / total, weights[1] / total, 0, 0], abs=1e-6)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0), (200, 0.1)])
@pytest.mark.parametrize("chunk", [1, 60, 2**25])
def test_same_predictions_as_sklearn(k: int, temperature: float, chunk: int, monkeypatch):
    monkeypatch.setattr(knn, "_MAX_SIMILARITIES", chunk)
    generator = torch.Generator().manual_seed(k)
    bank, queries = (F.normalize(torch.randn(n, 12, generator=generator), dim=1) for n in (300, 77))
    labels = torch.randint(6, (300,), generator=generator)
    votes = knn_votes(queries, bank, labels, num_classes=6, k=k, temperature=temperature)
    sklearn = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / temperature)
    ).fit(bank.numpy(), labels.numpy())
    assert (votes.argmax(1).numpy() == sklearn.predict(queries.numpy())).all()
    np.testing.assert_allclose(votes.numpy(), sklearn.predict_proba(queries.numpy()), atol=1e-5)


def test_the_evaluator_normalizes_and_counts(setting: MakeSetting):
    """On images through the loader, with fewer training images than k, and a limited bank."""
    train, val, net = source(60, 5, seed=1), source(41, 5, seed=2), Pixels()
    for keys, used in (({}, train), ({"knn_k": 100}, train), ({"knn_num_samples": 30, "knn_k": 3}, train.subset(30))):
        evaluator, answers = Knn(setting(val, train, **keys)), {}

        def keep(batch: Batch, votes: torch.Tensor, answers=answers) -> None:
            answers.update(zip(batch.indices.tolist(), votes.argmax(1).tolist(), strict=True))

        numbers = evaluator(net, answers=keep)
        sklearn = KNeighborsClassifier(
            min(keys.get("knn_k", 20), len(used)), metric="cosine", algorithm="brute",
            weights=lambda distances: np.exp((1 - distances) / 0.07),
        ).fit(pixels(used).numpy(), used.targets)  # fmt: skip
        expected = sklearn.predict(pixels(val).numpy())
        assert [answers[index] for index in range(41)] == expected.tolist()
        assert numbers["knn_correct1"] == (expected == val.targets).sum()
        assert numbers["knn_top1"] == pytest.approx(100 * numbers["knn_correct1"] / 41)
        assert numbers["num_images"] == 41
        convention = dict(evaluator.rows(numbers))["kNN convention"]
        assert convention.startswith(f"k {evaluator.k}, weights exp(cosine / 0.07), {len(used)} training images")


def test_digits_are_easy(digits: Splits, setting: MakeSetting):
    """Raw pixels: sklearn's documentation gives about 98 % for nearest neighbors on these digits."""
    numbers = Knn(setting(digits.val, digits.train, knn_temperature=0.01))(Pixels())
    assert numbers["knn_top1"] > 95


def test_labels_of_both_splits_are_needed(setting: MakeSetting):
    unlabeled = Unlabeled(15)
    with pytest.raises(DataError, match="knn needs labeled training images"):
        Knn(setting(source(15, 2), unlabeled))
    with pytest.raises(DataError, match="knn needs labeled validation images"):
        Knn(setting(unlabeled, source(15, 2)))
