"""Accuracy and loss over a labeled split, by one crop of each image or the average of many; counted in integers."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.distributed import all_sum
from vitcli.evaluators.evaluator import SINGLE_CROP, Answers, Evaluator, Setting, ShouldStop, never, with_labels
from vitcli.evaluators.images import EvalImages
from vitcli.evaluators.statistics import wilson


@dataclass(frozen=True)
class EvalResult:
    """Counts over all images, and what follows from them."""

    num_images: int
    correct1: int
    correct5: int  #: label among the min(5, num_classes) most likely classes
    nll: float  #: mean negative log-likelihood, in nats

    @classmethod
    def of(cls, numbers: dict[str, float], prefix: str = "") -> "EvalResult":
        """The result in `numbers`, which `as_dict` made, with `prefix` in front of each name."""
        num_images, correct1, correct5 = (
            int(numbers[prefix + name]) for name in ("num_images", "correct1", "correct5")
        )
        return cls(num_images, correct1, correct5, numbers[prefix + "nll"])

    @property
    def top1(self) -> float:
        return 100 * self.correct1 / self.num_images

    @property
    def top5(self) -> float:
        return 100 * self.correct5 / self.num_images

    def interval95(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval of top1, in percent."""
        low, high = wilson(self.correct1, self.num_images)
        return 100 * low, 100 * high

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        return {prefix + name: value for name, value in ({"top1": self.top1, "top5": self.top5} | asdict(self)).items()}


class Counts:
    """What the images seen so far on this rank come to; kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.seen = torch.zeros((), dtype=torch.int64, device=device)
        self.hits = torch.zeros(2, dtype=torch.int64, device=device)  # correct1, correct5
        self.nll = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits (B, num_classes) float32, labels (B,)."""
        first = logits.argmax(1) == labels  # (B,); of equal logits the first class, which `topk` leaves open
        among5 = (logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]).any(1)
        self.hits += torch.stack([first.sum(), (first | among5).sum()])
        self.seen += len(labels)
        self.nll += F.cross_entropy(logits, labels, reduction="sum")

    def result(self) -> EvalResult:
        """The counts of all ranks together."""
        total = int(all_sum(self.seen).item())
        correct1, correct5 = all_sum(self.hits).tolist()
        total_nll = all_sum(self.nll).item()
        return EvalResult(total, correct1, correct5, total_nll / total)


class Top1(Evaluator):
    """The network returns logits (B, num_classes); answers are logits, or the logarithm of mean probabilities."""

    needs_classifier = takes_crops = True
    metrics = ("top1", "top5", "nll")

    def __init__(self, setting: Setting) -> None:
        val = with_labels(setting.val, "validation", "top1")
        self.crops = setting.crops
        self.images = EvalImages(setting, val, crops=self.crops)

    def __call__(
        self, network: nn.Module, *, should_stop: ShouldStop = never, answers: Answers | None = None
    ) -> dict[str, float]:
        """top1, top5 (percent), nll, num_images, correct1, correct5; of many crops also `SINGLE_CROP` + each."""
        counts, single = Counts(self.images.device), Counts(self.images.device)

        def visit(batch: Batch) -> None:
            assert batch.targets is not None
            if self.crops:
                logits = self.images.crop_answers(network, batch.images)  # (B, 1 + crops, num_classes)
                single.add(logits[:, 0], batch.targets)
                logits = average_of_crops(logits[:, 1:], self.crops.average)
            else:
                logits = self.images.answers(network, batch.images)
            counts.add(logits, batch.targets)
            if answers:
                answers(batch, logits)

        self.images.visit(network, visit, should_stop)
        return counts.result().as_dict() | (single.result().as_dict(SINGLE_CROP) if self.crops else {})

    def rows(self, numbers: dict[str, float]) -> list[tuple[str, str]]:
        result = EvalResult.of(numbers)
        low, high = result.interval95()
        rows = [
            ("images", f"{result.num_images:,}" + (f", each by {self.crops}" if self.crops else "")),
            ("top-1", f"{result.top1:.2f} %  ({result.correct1:,} correct; 95 % interval {low:.2f} .. {high:.2f})"),
            ("top-5", f"{result.top5:.2f} %"),
            ("NLL", f"{result.nll:.4f}"),
        ]
        if self.crops:
            single = EvalResult.of(numbers, SINGLE_CROP)
            top1 = f"top-1 {single.top1:.2f} %  ({single.correct1:,} correct)"
            rows.append(("single crop", f"{top1}, top-5 {single.top5:.2f} %, NLL {single.nll:.4f}"))
        return rows


def average_of_crops(logits: Tensor, average: Literal["prob", "logit"]) -> Tensor:
    """(B, crops, num_classes) -> (B, num_classes): the mean of the logits, or the logarithm of the mean probability."""
    if average == "logit":
        return logits.mean(1)
    return logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])
