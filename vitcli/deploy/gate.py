"""The gate: compares an artifact, run by its own runtime, with the network it was exported from; refuses differences.

Inputs are made-up images (black, white, gradients, noise: those that reveal a faulty export) and, if given, labeled
real ones. If the network contains a softmax, logarithms of probabilities are compared instead of logits.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitcli.deploy.formats import Session
from vitcli.image_size import ImageSize, height_and_width

#: fp32: largest difference of a logit, absolute or as a share of the largest logit, whichever is larger
MAX_DIFFERENCE, MAX_SHARE = 1e-4, 5e-6
#: other precisions: root mean square of the differences / spread of the logits, on real images if there are any,
#: otherwise on made-up ones
MAX_ERROR = {"fp16": 0.02, "bf16": 0.15, "int8_weight": 0.15, "int8_dynamic": 0.3, "int8": 0.3}
#: points of top-1 that may be lost on real images; one image may always be lost, however few there are
MAX_DROP = 0.3
#: smaller probabilities are not compared
_LEAST_PROBABILITY = 1e-6


@dataclass
class Comparison:
    """The result on one set of images."""

    num_images: int = 0
    num_labeled: int = 0
    num_agreeing: int = 0  #: same top-1, or a tie in the source within fp32's tolerance
    correct_source: int = 0
    correct_artifact: int = 0
    max_difference: float = 0.0  #: of a logit
    max_logit: float = 0.0
    finite: bool = True
    squares: float = 0.0
    spread: float = 0.0

    @property
    def error(self) -> float:
        """Root mean square of the differences / standard deviation of the source's logits within an image."""
        return math.sqrt(self.squares / self.spread) if self.spread else 0.0

    @property
    def tolerance(self) -> float:
        """Of fp32."""
        return max(MAX_DIFFERENCE, MAX_SHARE * self.max_logit)

    def as_dict(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "num_images": self.num_images,
            "max_difference": _short(self.max_difference),
            "relative_error": _short(self.error),
            "top1_agreement": round(100 * self.num_agreeing / max(self.num_images, 1), 3),
        }
        if self.num_labeled:
            facts["top1_source"] = round(100 * self.correct_source / self.num_labeled, 3)
            facts["top1_artifact"] = round(100 * self.correct_artifact / self.num_labeled, 3)
            facts["correct_artifact"] = self.correct_artifact
        return facts


@dataclass
class Verdict:
    """The artifact passes if there are no `problems`."""

    made_up: Comparison
    real: Comparison | None
    problems: list[str] = field(default_factory=list)


def compare(
    session: Session,
    batches: Iterable[tuple[Tensor, Tensor, Tensor | None]],
    to_input: Callable[[Tensor], np.ndarray],
    *,
    gives_probabilities: bool,
) -> Comparison:
    """Run an artifact on images for which the source's logits are known.

    Args:
        batches: pixels (B, C, H, W) uint8, the source's logits (B, num_classes), and labels (B,) if they are known.
        to_input: pixels -> the input of the artifact.
    """
    found = Comparison()
    for pixels, logits, labels in batches:
        ours = logits.to(torch.float64)
        theirs = torch.from_numpy(session(to_input(pixels))).to(torch.float64)
        if gives_probabilities:
            ours = ours.log_softmax(-1)
            seen = (ours.exp() > _LEAST_PROBABILITY) | (theirs > _LEAST_PROBABILITY)
            theirs = theirs.clamp_min(1e-30).log()
            theirs = torch.where(seen, theirs, ours)
        _add(found, ours, theirs, labels)
    return found


def judge(precision: str, made_up: Comparison, real: Comparison | None) -> Verdict:
    """Apply the rules at the top of this file; an output that is not finite passes none of them."""
    verdict = Verdict(made_up, real)
    for found, words in ((made_up, "made-up images"), (real, "real images")):
        if found is None:
            continue
        if not found.finite:
            verdict.problems.append(f"outputs that are not finite on {words}, of the source or of the artifact")
        elif precision == "fp32" and not found.max_difference <= found.tolerance:
            difference = f"{found.max_difference:.2g} on {words}"
            verdict.problems.append(f"logits differ by up to {difference}; {found.tolerance:.2g} is allowed")
        elif precision == "fp32" and found.num_agreeing < found.num_images:
            lost = found.num_images - found.num_agreeing
            verdict.problems.append(f"top-1 differs on {lost:,} of {found.num_images:,} {words}")
    if precision == "fp32" or verdict.problems:
        return verdict
    seen = real or made_up
    if not seen.error <= MAX_ERROR[precision]:
        share = f"{100 * seen.error:.2g} % of their spread"
        verdict.problems.append(f"logits differ by {share}; {100 * MAX_ERROR[precision]:g} % is allowed")
    lost = seen.correct_source - seen.correct_artifact
    if lost > max(1, int(seen.num_labeled * MAX_DROP / 100)):
        drop = f"{100 * lost / seen.num_labeled:.2f} points on {seen.num_labeled:,} images"
        verdict.problems.append(f"top-1 falls by {drop}; {MAX_DROP} are allowed")
    return verdict


def made_up_pixels(img_size: ImageSize, in_channels: int) -> Tensor:
    """(16, C, H, W) uint8: flat, striped and checkered images and noise. The same on every call."""
    generator = torch.Generator().manual_seed(0)
    height, width = height_and_width(img_size)
    shape = (in_channels, height, width)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    one_pixel = torch.zeros(shape)
    one_pixel[:, height // 2, width // 3] = 255
    images = [
        *(torch.full(shape, float(level)) for level in (0, 127, 255)),
        torch.linspace(0, 255, width).expand(shape),
        torch.linspace(255, 0, height)[:, None].expand(shape),
        ((rows + columns) % 2 * 255.0).expand(shape),
        ((rows // 8 + columns // 8) % 2 * 255.0).expand(shape),
        one_pixel,
        *(256 * torch.rand(shape, generator=generator) for _ in range(2)),
        *(_clouds(shape, cells, generator) for cells in (2, 3, 4, 6, 8, 16)),
    ]
    return torch.stack(images).clamp(0, 255).to(torch.uint8)


def _short(number: float) -> float | None:
    """Three digits; None for a number that JSON cannot represent."""
    return float(f"{number:.3g}") if math.isfinite(number) else None


def _clouds(shape: tuple[int, int, int], cells: int, generator: torch.Generator) -> Tensor:
    """Smooth colored noise."""
    coarse = 256 * torch.rand((1, shape[0], cells, cells), generator=generator)
    return torch.nn.functional.interpolate(coarse, shape[1:], mode="bicubic", align_corners=False)[0]


def _add(found: Comparison, ours: Tensor, theirs: Tensor, labels: Tensor | None) -> None:
    found.num_images += len(ours)
    found.finite &= bool(theirs.isfinite().all() and ours.isfinite().all())
    difference = (theirs - ours).abs()
    found.max_difference = max(found.max_difference, difference.max().item())
    found.max_logit = max(found.max_logit, ours.abs().max().item())
    found.squares += difference.square().sum().item()
    found.spread += (ours - ours.mean(1, keepdim=True)).square().sum().item()
    first, chosen = ours.argmax(1), theirs.argmax(1)
    margin = ours.gather(1, first[:, None]) - ours.gather(1, chosen[:, None])  # (B, 1), 0 where they agree
    tolerance = (MAX_SHARE * ours.abs().amax(1)).clamp_min(MAX_DIFFERENCE)  # of each image, whatever the others are
    found.num_agreeing += int((margin[:, 0] <= 2 * tolerance).sum())
    if labels is not None:
        found.num_labeled += len(labels)
        found.correct_source += int((first == labels).sum())
        found.correct_artifact += int((chosen == labels).sum())
