"""Accuracy and loss over a validation split: integer counts, every image exactly once, on any number of ranks."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

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
        centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return 100 * (centre - half) / (1 + z * z / n), 100 * (centre + half) / (1 + z * z / n)

    def as_dict(self) -> dict[str, float | int]:
        return {"top1": self.top1, "top5": self.top5, **asdict(self)}


class Stopped(Exception):
    """The evaluation was asked to stop; its counts are incomplete and were dropped."""


@torch.inference_mode()
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
        batches: yields objects with `images` (B, C, H, W) uint8 and `labels` (B,).
        prepare: uint8 images on the device -> normalised images.
        num_images: size of the whole split; the counts of all ranks must add up to it.

    Raises:
        Stopped: `should_stop` said so between two batches, on any rank.
    """
    was_training = model.training
    model.eval()
    seen, stopped = 0, False
    hits = torch.zeros(2, dtype=torch.int64, device=device)  # correct1, correct5
    nll = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    try:
        for batch in batches:
            if stopped := should_stop():
                break
            images = prepare(batch.images.to(device, non_blocking=True))
            labels = batch.labels.to(device, non_blocking=True)
            with autocast():
                logits = model(images)
            ranked = logits.float().topk(min(5, logits.shape[1]), dim=1).indices  # (B, 5)
            right = ranked == labels[:, None]
            hits += torch.stack([right[:, 0].sum(), right.sum()])
            seen += len(labels)
            nll += F.cross_entropy(logits.float(), labels, reduction="sum")
    finally:
        model.train(was_training)
    if any_rank(stopped):
        raise Stopped
    total = int(all_sum(torch.tensor([seen], device=device)).item())
    correct1, correct5 = all_sum(hits).tolist()
    total_nll = all_sum(nll).item()
    assert total == num_images, f"evaluated {total} of {num_images} images"
    return EvalResult(total, correct1, correct5, total_nll / total)
