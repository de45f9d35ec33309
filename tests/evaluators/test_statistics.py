"""Against scipy, scikit-learn, and against tables that were published or computed by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from vitcli.evaluators import statistics


@pytest.mark.parametrize(
    ("successes", "total"), [(0, 1), (1, 1), (8, 10), (0, 40), (40, 40), (301, 397), (41_234, 50_000)]
)
def test_wilson(successes: int, total: int):
    expected = binomtest(successes, total).proportion_ci(0.95, method="wilson")
    assert statistics.wilson(successes, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_seen_proves_nothing():
    assert statistics.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (5, 5), (1, 9), (12, 30), (700, 640), (9_000, 9_500)])
def test_mcnemar(first: int, second: int):
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert statistics.mcnemar(first, second) == pytest.approx(expected, rel=1e-7)
    assert statistics.mcnemar(second, first) == statistics.mcnemar(first, second)


def test_mcnemar_of_a_table():
    """4 and 12 of 16: 2 * (1 + 16 + 120 + 560 + 1820) / 2^16."""
    assert statistics.mcnemar(4, 12) == pytest.approx(2 * 2517 / 65536)


@pytest.mark.parametrize("bins", [5, 15])
def test_expected_calibration_error(bins: int):
    """Some bins are empty: confidences are above 0.3."""
    generator = np.random.default_rng(0)
    confidence = 0.3 + 0.7 * generator.random(500)
    correct = generator.random(500) < confidence**2
    found = statistics.reliability_bins(confidence, correct, bins)
    filled = [one for one in found if one.num_images]
    accuracy, mean = calibration_curve(correct, confidence, n_bins=bins)
    assert [one.accuracy for one in filled] == pytest.approx(accuracy)
    assert [one.confidence for one in filled] == pytest.approx(mean)
    counts, _ = np.histogram(confidence, bins, range=(0, 1))
    assert [one.num_images for one in found] == counts.tolist()
    share = counts[counts > 0] / 500
    expected = (share * abs(accuracy - mean)).sum()
    assert statistics.expected_calibration_error(confidence, correct, bins) == pytest.approx(expected)


def test_bins_by_hand():
    """A confidence of exactly 1 is in the last bin, one on an edge in the lower bin, 0 in the first."""
    confidence, correct = np.array([0.0, 0.5, 0.6, 1.0]), np.array([True, False, True, True])
    first, second = statistics.reliability_bins(confidence, correct, bins=2)
    assert (first.low, first.high, first.num_images, first.confidence, first.accuracy) == (0, 0.5, 2, 0.25, 0.5)
    assert (second.low, second.high, second.num_images, second.confidence, second.accuracy) == (0.5, 1, 2, 0.8, 1)
    assert statistics.expected_calibration_error(confidence, correct, 2) == pytest.approx((2 * 0.25 + 2 * 0.2) / 4)
    assert statistics.expected_calibration_error(confidence[:0], correct[:0]) == 0


def test_brier():
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet(np.ones(4), 50), generator.integers(0, 4, 50)
    expected = brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert statistics.brier(probabilities, labels) == pytest.approx(expected)


@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 4.0])
def test_temperature(true_temperature: float):
    """The minimum that scipy finds, near the temperature by which the labels were drawn."""
    generator = torch.Generator().manual_seed(1)
    logits = 6 * torch.randn(2000, 5, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / true_temperature).softmax(1), 1, generator=generator)[:, 0]

    def loss(log_t: float) -> float:
        return F.cross_entropy(logits / math.exp(log_t), labels).item()

    expected = math.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).x)
    found = statistics.fit_temperature(logits.numpy(), labels.numpy())
    assert found == pytest.approx(expected, rel=1e-5)
    assert found == pytest.approx(true_temperature, rel=0.15)


def test_no_temperature_without_a_minimum():
    """All right: the loss falls to 0 with T. Worse than chance: it falls as T grows."""
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert statistics.fit_temperature(logits, np.array([0, 1])) is None
    assert statistics.fit_temperature(logits, np.array([1, 0])) is None
