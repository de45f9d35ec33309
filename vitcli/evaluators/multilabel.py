"""How well any number of classes per image are found: average precision of each class, and F1 at its threshold.

The scores of all images are gathered, so the numbers are exact on any number of ranks.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.distributed import all_rows
from vitcli.errors import DataError, DivergedError
from vitcli.evaluators.evaluator import SINGLE_CROP, Answers, Evaluator, Setting, ShouldStop, never, with_labels
from vitcli.evaluators.images import EvalImages
from vitcli.evaluators.operating_points import average_precision, best_threshold, f1

#: where nothing better is known
DEFAULT_THRESHOLD = 0.5
#: classes that the table shows, those with the lowest average precision
MOST_CLASSES = 20


class MultiLabel(Evaluator):
    """The network returns logits (B, num_classes); answers are logits, of many crops those of the average.

    In training, the threshold of each class is the one with the best F1 on these images (`findings`). Later these
    thresholds are used as they are, so that F1 is that of the network as it answers.
    """

    needs_classifier = takes_crops = True
    metrics = ("mAP", "f1_micro", "f1_macro")

    def __init__(self, setting: Setting) -> None:
        val = with_labels(setting.val, "validation", "multilabel", multi_label=True)
        assert val.targets is not None
        assert val.class_names is not None
        if not val.targets.any():
            raise DataError("no validation image has any class: there is nothing to measure", help="check the labels")
        self.crops, self.targets, self.class_names = setting.crops, val.targets, val.class_names
        self.images = EvalImages(setting, val, crops=self.crops)
        self.thresholds = thresholds_in(setting.findings, len(self.class_names))
        self.in_training, self.are_known = setting.findings is None, bool((setting.findings or {}).get("thresholds"))

    def __call__(
        self, network: nn.Module, *, should_stop: ShouldStop = never, answers: Answers | None = None
    ) -> dict[str, float]:
        """mAP, f1_micro, f1_macro (percent), num_images, num_classes: those that the means are over, which have images.

        For each class positives.NAME (images), threshold.NAME and, if it has images, ap.NAME and f1.NAME (percent). Of
        many crops also `SINGLE_CROP` + each of `metrics`.
        """
        found: list[Tensor] = []
        single: list[Tensor] = []

        def visit(batch: Batch) -> None:
            if self.crops:
                logits = self.images.crop_answers(network, batch.images)  # (B, 1 + crops, num_classes)
                single.append(logits[:, 0])
                logits = average_of_crops(logits[:, 1:], self.crops.average)
            else:
                logits = self.images.answers(network, batch.images)
            found.append(logits)
            if answers:
                answers(batch, logits)

        self.images.visit(network, visit, should_stop)
        logits = self._gathered(found)
        if self.in_training:
            self.thresholds = chosen_thresholds(probabilities(logits), self.targets)
        numbers = self._numbers(logits)
        if self.crops:
            of_single = self._numbers(self._gathered(single))
            numbers |= {SINGLE_CROP + name: of_single[name] for name in self.metrics}
        return numbers

    def _gathered(self, found: list[Tensor]) -> np.ndarray:
        """(num_images, num_classes) float32: the logits of all ranks, in the order of the source."""
        width = len(self.class_names)
        own = torch.cat([torch.empty(0, width, device=self.images.device), *found])
        rows = all_rows(own, self.images.num_images)
        if not rows.isfinite().all():
            raise DivergedError("the network's outputs are NaN or infinite", help="check its weights, or set amp: off")
        return rows.cpu().numpy()

    def _numbers(self, logits: np.ndarray) -> dict[str, float]:
        predicted = probabilities(logits) >= self.thresholds
        measured = self.targets.sum(0) > 0
        numbers: dict[str, float] = {}
        for column, name in enumerate(self.class_names):
            has = self.targets[:, column]
            numbers |= {f"positives.{name}": int(has.sum()), f"threshold.{name}": float(self.thresholds[column])}
            if measured[column]:
                numbers[f"ap.{name}"] = 100 * average_precision(logits[:, column], has)
                numbers[f"f1.{name}"] = 100 * f1(predicted[:, column], has)
        return {
            "mAP": _mean_of(numbers, "ap."),
            "f1_micro": 100 * f1(predicted[:, measured], self.targets[:, measured]),
            "f1_macro": _mean_of(numbers, "f1."),
            "num_images": len(logits),
            "num_classes": int(measured.sum()),
            **numbers,
        }

    def findings(self) -> dict[str, Any]:
        return {"thresholds": self.thresholds.tolist()} if self.in_training else {}

    def rows(self, numbers: dict[str, float]) -> list[tuple[str, str]]:
        num_measured, total = int(numbers["num_classes"]), len(self.class_names)
        over = f"{num_measured} classes" if num_measured == total else f"{num_measured} of {total} classes, with images"
        rows = [
            ("images", f"{numbers['num_images']:,}" + (f", each by {self.crops}" if self.crops else "")),
            ("mAP", f"{numbers['mAP']:.2f} %  (mean over {over})"),
            ("F1", f"micro {numbers['f1_micro']:.2f} %, macro {numbers['f1_macro']:.2f} %"),
            ("thresholds", self._origin()),
        ]
        if self.crops:
            mean, micro, macro = (numbers[SINGLE_CROP + name] for name in self.metrics)
            rows.append(("single crop", f"mAP {mean:.2f} %, F1 micro {micro:.2f} %, macro {macro:.2f} %"))
        measured = [name for name in self.class_names if f"ap.{name}" in numbers]
        lowest = sorted(measured, key=lambda name: numbers[f"ap.{name}"])[:MOST_CLASSES]
        rows += [(f"  {name}", _of_class(numbers, name)) for name in lowest]
        if hidden := len(measured) - len(lowest):
            rows.append(("", f"… and {hidden} with a higher AP; --json FILE has all"))
        return rows

    def _origin(self) -> str:
        if self.in_training:
            return "the best F1 of each class on these images"
        if self.are_known:
            return "stored with the network, chosen on its validation images in training"
        return f"{DEFAULT_THRESHOLD} for each class: none are stored with the network"


def thresholds_in(findings: Mapping[str, Any] | None, num_classes: int) -> np.ndarray:
    """(num_classes,) float64: the thresholds in the findings of an evaluation, else `DEFAULT_THRESHOLD` for each class.

    Raises:
        DataError: there is another number of them.
    """
    known = (findings or {}).get("thresholds") or [DEFAULT_THRESHOLD] * num_classes
    if not isinstance(known, list) or len(known) != num_classes or not all(isinstance(one, float) for one in known):
        message = f"the thresholds that are stored with the network are not {num_classes} numbers, one for each class"
        raise DataError(message, help="copy the checkpoint again")
    return np.array(known, dtype=np.float64)


def chosen_thresholds(probabilities: np.ndarray, has: np.ndarray) -> np.ndarray:
    """(num_classes,): the best threshold of each class; `DEFAULT_THRESHOLD` for one that no image has.

    Args:
        probabilities, has: (N, num_classes).
    """
    columns = zip(probabilities.T, has.T, strict=True)
    return np.array([best_threshold(p, of_one) if of_one.any() else DEFAULT_THRESHOLD for p, of_one in columns])


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The sigmoid, in float64."""
    return 0.5 + 0.5 * np.tanh(logits.astype(np.float64) / 2)  # 1 / (1 + exp(-x)) would overflow


def average_of_crops(logits: Tensor, average: Literal["prob", "logit"]) -> Tensor:
    """(B, crops, num_classes) -> (B, num_classes): the mean of the logits, or the logit of the mean probability."""
    if average == "logit":
        return logits.mean(1)
    return F.logsigmoid(logits).logsumexp(1) - F.logsigmoid(-logits).logsumexp(1)


def _mean_of(numbers: dict[str, float], prefix: str) -> float:
    values = [value for name, value in numbers.items() if name.startswith(prefix)]
    return math.fsum(values) / len(values)


def _of_class(numbers: dict[str, float], name: str) -> str:
    ap, best, threshold, count = (numbers[f"{what}.{name}"] for what in ("ap", "f1", "threshold", "positives"))
    return f"AP {ap:.2f} %, F1 {best:.2f} %, threshold {threshold:.3f}, {count:,} images"
