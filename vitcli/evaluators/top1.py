"""Accuracy and loss over a validation split: integer counts, every image exactly once, on any number of ranks."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.distributed import all_sum, any_rank


@dataclass(frozen=True)
class EvalResult:
    """Counts over all images, and what follows from them."""

    num_images: int
    correct1: int
    correct5: int  #: label among the min(5, num_classes) most likely classes
    nll: float  #: mean negative log-likelihood, in nats

    @property
    def top1(self) -> float:
        return 100 * self.correct1 / self.num_images

    @property
    def top5(self) -> float:
        return 100 * self.correct5 / self.num_images

    def interval95(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval of top1, in percent."""
        n, p, z = self.num_images, self.correct1 / self.num_images, 1.959964
        center, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return 100 * (center - half) / (1 + z * z / n), 100 * (center + half) / (1 + z * z / n)

    def as_dict(self) -> dict[str, float | int]:
        return {"top1": self.top1, "top5": self.top5, **asdict(self)}


from vitcli.evaluators.evaluator import Stopped


class Counts:
    """What one way of scoring the images got right so far, on this rank; kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seen = torch.zeros((), dtype=torch.int64, device=device)
        self.hits = torch.zeros(2, dtype=torch.int64, device=device)  # correct1, correct5
        self.nll = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits (B, num_classes) float32, labels (B,)."""
        right = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]  # (B, 5)
        self.hits += torch.stack([right[:, 0].sum(), right.sum()])
        self.seen += len(labels)
        self.nll += F.cross_entropy(logits, labels, reduction="sum")

    def result(self, num_images: int) -> EvalResult:
        """The counts of all ranks together."""
        total = int(all_sum(self.seen).item())
        correct1, correct5 = all_sum(self.hits).tolist()
        total_nll = all_sum(self.nll).item()
        assert total == num_images, f"evaluated {total} of {num_images} images"
        return EvalResult(total, correct1, correct5, total_nll / total)


def evaluate(
    model: nn.Module,
    batches: Iterable,
    prepare: Callable[[Tensor], Tensor],
    *,
    num_images: int,
    device: torch.device,
    autocast: Callable[[], torch.autocast],
    should_stop: Callable[[], bool] = lambda: False,
) -> EvalResult:
    """Run `model` in eval mode over this rank's share of the images and add up the counts of all ranks.

    Args:
        batches: yields batches with `images` (B, C, H, W) uint8 and `targets` (B,).
        prepare: uint8 images on the device -> normalized images.
        num_images: size of the whole split; the counts of all ranks must add up to it.

    Raises:
        Stopped: `should_stop` said so between two batches, on any rank.
    """

    def score(images: Tensor) -> tuple[Tensor]:
        with autocast():
            return (model(prepare(images)).float(),)

    return count(model, batches, score, (Counts(device),), num_images=num_images, should_stop=should_stop)[0]


def evaluate_crops(
    model: nn.Module,
    batches: Iterable,
    prepare: Callable[[Tensor], Tensor],
    *,
    average: Literal["prob", "logit"],
    chunk_size: int,
    num_images: int,
    device: torch.device,
    autocast: Callable[[], torch.autocast],
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[EvalResult, EvalResult]:
    """The same with several crops of each image: the result by the first crop alone, and by the average of the others.

    Args:
        batches: yields batches with `images` (B, 1 + crops, C, H, W) uint8 and `targets` (B,).
        average: see `average_of_crops`.
        chunk_size: the model sees at most so many crops at a time.
    """

    def score(images: Tensor) -> tuple[Tensor, Tensor]:
        crops = images.flatten(0, 1)
        chunks = crops.chunk(math.ceil(len(crops) / chunk_size))
        with autocast():
            logits = torch.cat([model(prepare(chunk)).float() for chunk in chunks])
        logits = logits.unflatten(0, images.shape[:2])  # (B, 1 + crops, num_classes)
        return logits[:, 0], average_of_crops(logits[:, 1:], average)

    counts = Counts(device), Counts(device)
    single, averaged = count(model, batches, score, counts, num_images=num_images, should_stop=should_stop)
    return single, averaged


def average_of_crops(logits: Tensor, average: Literal["prob", "logit"]) -> Tensor:
    """(B, crops, num_classes) -> (B, num_classes): the mean of the logits, or the logarithm of the mean probability."""
    if average == "logit":
        return logits.mean(1)
    return logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])


@torch.inference_mode()
def count(
    model: nn.Module,
    batches: Iterable,
    score: Callable[[Tensor], tuple[Tensor, ...]],
    counts: tuple[Counts, ...],
    *,
    num_images: int,
    should_stop: Callable[[], bool],
) -> list[EvalResult]:
    """Give each of `counts` its logits of every batch: those that `score` makes of the images on the device."""
    device, was_training, stopped = counts[0].device, model.training, False
    model.eval()
    try:
        for batch in batches:
            if stopped := should_stop():
                break
            labels = batch.targets.to(device, non_blocking=True)
            for one, logits in zip(counts, score(batch.images.to(device, non_blocking=True)), strict=True):
                one.add(logits, labels)
    finally:
        model.train(was_training)
    if any_rank(stopped):
        raise Stopped
    return [one.result(num_images) for one in counts]


def result_rows(result: EvalResult) -> list[tuple[str, str]]:
    """The rows of a table that show a result."""
    low, high = result.interval95()
    return [
        ("top-1", f"{result.top1:.2f} %  ({result.correct1:,} correct; 95 % interval {low:.2f} .. {high:.2f})"),
        ("top-5", f"{result.top5:.2f} %"),
        ("NLL", f"{result.nll:.4f}"),
    ]


class Top1:
    needs_train = False
    metrics = ("top1", "top5", "nll")

    def __init__(self, setting):
        from vitcli.engine.evaluation import build_evaluate

        self.run = build_evaluate(setting.recipe, setting.val, setting.world)

    def __call__(self, network, *, should_stop=lambda: False, answers=None):
        return self.run(network, should_stop).as_dict()
