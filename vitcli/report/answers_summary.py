"""What the answers to all images come to: class by class, and whether the probabilities can be trusted.

Rows for the table of `vitcli validate`, entries for its JSON file, in percent.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from vitcli.evaluators.answers import ClassResult, ImageAnswers, Interval, MultiLabelAnswers
from vitcli.evaluators.statistics import NUM_BINS, brier, expected_calibration_error, reliability_bins

#: classes that the table shows, those with the lowest recall
NUM_WORST = 5


def answers_facts(answers: ImageAnswers | MultiLabelAnswers) -> dict[str, Any]:
    """Class by class, in percent with 95 % intervals; of one class per image also the calibration."""
    facts: dict[str, Any] = {"classes": {one.name: _class_facts(one) for one in answers.per_class()}}
    if isinstance(answers, ImageAnswers):
        confidence, correct = answers.confidence, answers.correct
        facts["calibration"] = {
            "ece": 100 * expected_calibration_error(confidence, correct),
            "brier": brier(answers.probabilities, answers.targets),
            "mean_confidence": 100 * float(confidence.mean(dtype=np.float64)),
            "bins": [asdict(one) for one in reliability_bins(confidence, correct)],
        }
    return facts


def answers_rows(answers: ImageAnswers) -> list[tuple[str, str]]:
    """The calibration, and the classes that are found least often."""
    ece = 100 * expected_calibration_error(answers.confidence, answers.correct)
    sure = 100 * answers.confidence.mean(dtype=np.float64)
    rows = [("calibration", f"ECE {ece:.2f} % in {NUM_BINS} bins, mean confidence {sure:.2f} %")]
    results = [one for one in answers.per_class() if one.num_images]
    by_recall = sorted(results, key=lambda one: (one.num_hits / one.num_images, -one.num_images))
    worst = [one for one in by_recall[:NUM_WORST] if one.num_hits < one.num_images]
    if worst:
        all_ = f"; --json FILE has all {len(results):,}" if len(results) > len(worst) else ""
        rows.append(("worst classes", f"by recall{all_}"))
    return rows + [(f"  {one.name}", _in_words(one, answers)) for one in worst]


def _in_words(one: ClassResult, answers: ImageAnswers) -> str:
    number, recall = answers.class_names.index(one.name), one.num_hits / one.num_images
    low, high = (100 * bound for bound in one.recall95)
    said = f"recall {100 * recall:.2f} %  ({one.num_hits:,} of {one.num_images:,}; {low:.2f} .. {high:.2f})"
    said += ", never predicted" if one.precision is None else f", precision {100 * one.precision:.2f} %"
    taken = np.bincount(answers.predicted[answers.targets == number], minlength=len(answers.class_names))
    taken[number] = 0
    return f"{said}; taken for {answers.class_names[taken.argmax()]!r} {taken.max():,} times"


def _class_facts(one: ClassResult) -> dict[str, Any]:
    return {
        "num_images": one.num_images,
        "num_predicted": one.num_predicted,
        "num_hits": one.num_hits,
        "recall": _percent(one.recall),
        "recall95": _bounds(one.recall95),
        "precision": _percent(one.precision),
        "precision95": _bounds(one.precision95),
        "f1": _percent(one.f1),
        "f1_95": _bounds(one.f1_95),
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _bounds(interval: Interval) -> list[float]:
    return [100 * bound for bound in interval]
