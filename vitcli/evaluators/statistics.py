"""What a share of images proves: confidence intervals, tests of a difference, and whether probabilities can be trusted.

numpy only, no network: the functions take counts, probabilities (N,) or (N, C), logits (N, C) and labels (N,).
"""

import math
from dataclasses import dataclass

import numpy as np

#: bins of equal width in which the confidence is compared with the accuracy, as in Guo et al. 2017
NUM_BINS = 15
#: the 97.5 % quantile of the normal distribution: an interval of 95 % has half of the rest on each side
_Z95 = 1.959963984540054
#: a temperature beyond these is not fitted
_LOWEST, _HIGHEST = 1e-2, 1e2


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is in (low, high], in 0..1."""

    low: float
    high: float
    num_images: int
    confidence: float  #: mean; 0 without images
    accuracy: float  #: 0 without images


def wilson(successes: int, total: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share, in 0..1 (Wilson 1927); (0, 1) if nothing was seen."""
    if not total:
        return 0.0, 1.0
    share, z2 = successes / total, _Z95 * _Z95 / total
    center, half = share + z2 / 2, math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    return max(0.0, (center - half) / (1 + z2)), min(1.0, (center + half) / (1 + z2))


def mcnemar(only_first: int, only_second: int) -> float:
    """The probability of a difference at least as large by chance if two networks are equally good (McNemar 1947).

    Exact for any number of images: twice the tail of the binomial distribution with p = 1/2, at most 1.

    Args:
        only_first, only_second: images that one network answers correctly and the other does not.
    """
    total, fewer = only_first + only_second, min(only_first, only_second)
    logs = (_log_choose(total, count) - total * math.log(2) for count in range(fewer + 1))
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def reliability_bins(confidence: np.ndarray, correct: np.ndarray, bins: int = NUM_BINS) -> list[Bin]:
    """Confidence and accuracy in `bins` bins of equal width.

    Args:
        confidence: (N,) the probability of the predicted class, in 0..1.
        correct: (N,) bool, whether the prediction is right.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, values, minlength=bins) for values in (confidence, correct))
    means = [(total / np.maximum(counts, 1)).tolist() for total in sums]
    return [Bin(*found) for found in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), *means, strict=True)]


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = NUM_BINS) -> float:
    """The mean distance of confidence and accuracy over `reliability_bins`, weighted by images, in 0..1 (Guo 2017)."""
    found = reliability_bins(confidence, correct, bins)
    return math.fsum(one.num_images * abs(one.confidence - one.accuracy) for one in found) / max(1, len(confidence))


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean over images of the sum over classes of (probability - truth)^2, in 0..2 (Brier 1950).

    Args:
        probabilities: (N, C). labels: (N,) int64.
    """
    of_truth = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float64)
    squares = np.einsum("nc,nc->n", probabilities, probabilities, dtype=np.float64)
    return float((squares - 2 * of_truth + 1).mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The T for which softmax(logits / T) has the smallest negative log-likelihood (Guo et al. 2017, section 4.2).

    The loss is convex in 1 / T, so Newton's method with a bracket finds its only minimum.

    Returns:
        None: there is no minimum. All images are right, and the loss falls to 0 with T; or the logits are no better
        than chance, and it falls as T grows.

    Args:
        logits: (N, C). labels: (N,) int64.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    of_truth = np.take_along_axis(shifted, labels[:, None], axis=1).mean()
    low, high = 1 / _HIGHEST, 1 / _LOWEST
    if _slope(shifted, of_truth, low)[0] >= 0 or _slope(shifted, of_truth, high)[0] <= 0:
        return None
    inverse = 1.0
    for _ in range(200):
        slope, curvature = _slope(shifted, of_truth, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else math.nan
        after = step if low < step < high else math.sqrt(low * high)
        if abs(after - inverse) <= 1e-10 * inverse:
            break
        inverse = after
    return 1 / inverse


def _slope(shifted: np.ndarray, of_truth: float, inverse: float) -> tuple[float, float]:
    """The first and second derivative of the mean loss by 1 / T: mean and variance of the logits under the softmax."""
    powers = np.exp(inverse * shifted)
    total = powers.sum(axis=1)
    mean = np.einsum("nc,nc->n", powers, shifted) / total
    square = np.einsum("nc,nc,nc->n", powers, shifted, shifted) / total
    return float(mean.mean() - of_truth), float((square - mean * mean).mean())


def _log_choose(total: int, count: int) -> float:
    """The logarithm of the binomial coefficient."""
    return math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)
