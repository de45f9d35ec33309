"""A temperature is fitted on one half of each class and measured on the other."""

import numpy as np
import pytest

from vitcli.errors import DataError
from vitcli.evaluators.answers import ImageAnswers
from vitcli.evaluators.calibration import fitted, halves
from vitcli.evaluators.statistics import fit_temperature


def answers(num_images: int = 401, scale: float = 3.0) -> ImageAnswers:
    """Labels drawn by the softmax of the logits / `scale`, of three classes."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(num_images, 3))
    powers = np.exp(2 * logits)
    targets = np.array([generator.choice(3, p=row / row.sum()) for row in powers])
    names = [f"{index}.png" for index in range(num_images)]
    return ImageAnswers(names, [*"abc"], targets, (2 * scale * logits).astype(np.float32))


def test_halves():
    """Disjoint, complete, equal in each class to one image, and the same in another order of the images."""
    whole = answers()
    first, second = halves(whole)
    assert sorted(first.names + second.names) == sorted(whole.names)
    assert len(first) - len(second) == 1
    assert abs(np.bincount(first.targets) - np.bincount(second.targets)).max() <= 1
    again, _ = halves(whole.select(np.arange(len(whole))[::-1]))
    assert sorted(again.names) == sorted(first.names)


def test_fitted_on_one_half_only():
    whole = answers()
    first, second = halves(whole)
    found = fitted(whole)
    assert found.temperature == fit_temperature(first.logits, first.targets)
    assert found.temperature == pytest.approx(3, rel=0.2)
    assert found.nll_before == pytest.approx(second.losses.mean())
    assert found.nll_after == pytest.approx(second.with_temperature(found.temperature).losses.mean())
    assert found.helps
    assert found.ece_after < found.ece_before


def test_nothing_to_fit():
    whole = answers()
    with pytest.raises(DataError, match="all of them are right"):
        fitted(whole.select(np.flatnonzero(whole.correct)))
