"""What a threshold on the scores of one class comes to: average precision over all, and the one with the best F1.

Scores are compared only with each other: logits and probabilities give the same.
"""

import numpy as np


def average_precision(scores: np.ndarray, has: np.ndarray) -> float:
    """The sum over all thresholds of precision x gain in recall, in 0..1; scikit-learn's `average_precision_score`.

    Args:
        scores: (N,), larger where the class is more likely.
        has: (N,) bool, whether the image has the class; at least one has.
    """
    _, hits, chosen = _operating_points(scores, has)
    return float((hits / chosen * np.diff(hits, prepend=0)).sum() / hits[-1])


def best_threshold(probabilities: np.ndarray, has: np.ndarray) -> float:
    """The threshold at which F1 = 2 hits / (chosen + positives) is largest, for images with at least that probability.

    It lies in the middle between two probabilities, so that rounding in another runtime changes no answer.
    """
    found, hits, chosen = _operating_points(probabilities, has)
    best = int((2 * hits / (chosen + hits[-1])).argmax())
    return float(np.append(found, 0.0)[best : best + 2].mean())


def f1(predicted: np.ndarray, has: np.ndarray) -> float:
    """2 hits / (chosen + positives) of yes-or-no answers, all bool of one shape, in 0..1; 0 if nothing is chosen."""
    return float(2 * (predicted & has).sum() / max(1, predicted.sum() + has.sum()))


def _operating_points(scores: np.ndarray, has: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each different score, from the largest: the score, and how many images with at least this score there are.

    Returns:
        (K,) scores, (K,) images that have the class ("hits"), (K,) all images ("chosen").
    """
    order = np.argsort(-scores, kind="stable")
    scores = scores[order].astype(np.float64)
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    return scores[last], np.cumsum(has[order])[last], last + 1
