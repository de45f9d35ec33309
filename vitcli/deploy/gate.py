"""The gate: compares an artifact, run by its own runtime, with the network it was exported from; refuses differences.

Inputs are made-up images (black, white, gradients, noise: those that reveal a faulty export) and, if given, labeled
real ones. If the network contains a softmax, logarithms of probabilities are compared instead of logits; if it contains
a sigmoid, the logits that follow from the probabilities.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from vitcli.deploy.formats import Session
from vitcli.evaluators.operating_points import average_precision
from vitcli.evaluators.top1 import EvalResult
from vitcli.image_size import ImageSize, height_and_width

#: fp32: largest difference of a logit, absolute or as a share of the largest logit, whichever is larger
MAX_DIFFERENCE, MAX_SHARE = 1e-4, 5e-6
#: other precisions: root mean square of the differences / spread of the logits, on real images if there are any,
#: otherwise on made-up ones
MAX_ERROR = {"fp16": 0.02, "bf16": 0.15, "int8_weight": 0.15, "int8_dynamic": 0.3, "int8": 0.3}
#: points of top-1 or mAP that may be lost on real images; one image may always be lost, however few there are
MAX_DROP = 0.3
#: smaller probabilities are not compared
_LEAST_PROBABILITY = 1e-6
#: beyond these, logits of a sigmoid are not compared: below is a probability of 1e-6, and above 0.9975 the rounding of
#: float32 moves the logit by more than a tenth of fp32's tolerance
_LOGITS = (math.log(_LEAST_PROBABILITY), 6.0)


@dataclass
class Comparison:
    """The result on one set of images, each of which has one class."""

    num_images: int = 0
    num_labeled: int = 0
    num_agreeing: int = 0  #: same answer, or a tie in the source within fp32's tolerance
    correct_source: int = 0
    correct_artifact: int = 0
    max_difference: float = 0.0  #: of a logit
    max_logit: float = 0.0
    finite: bool = True
    squares: float = 0.0
    spread: float = 0.0

    METRIC: ClassVar[str] = "top1"  #: what `source_percent` is, in artifact.json
    TITLE: ClassVar[str] = "top-1"  #: the same for people
    ANSWER: ClassVar[str] = "top-1"  #: what must be the same

    @property
    def error(self) -> float:
        """Root mean square of the differences / standard deviation of the source's logits within an image."""
        return math.sqrt(self.squares / self.spread) if self.spread else 0.0

    @property
    def tolerance(self) -> float:
        """Of fp32."""
        return max(MAX_DIFFERENCE, MAX_SHARE * self.max_logit)

    @property
    def agreement_percent(self) -> float:
        """Images with the same answer."""
        return round(100 * self.num_agreeing / max(self.num_images, 1), 3)

    @property
    def source_percent(self) -> float:
        return 100 * self.correct_source / self.num_labeled

    @property
    def artifact_percent(self) -> float:
        return 100 * self.correct_artifact / self.num_labeled

    @property
    def num_lost(self) -> float:
        """Images that the artifact has lost."""
        return self.correct_source - self.correct_artifact

    def add(self, logits: Tensor, outputs: Tensor, targets: Tensor | None, *, probabilities: bool) -> None:
        """Count a batch.

        Args:
            logits, outputs: (B, num_classes) float64, of the source and of the artifact.
            targets: as `Batch.targets`; None: unknown.
            probabilities: whether `outputs` are probabilities, not logits.
        """
        ours, theirs = logits, outputs
        if probabilities:
            ours = ours.log_softmax(-1)
            seen = (ours.exp() > _LEAST_PROBABILITY) | (theirs > _LEAST_PROBABILITY)
            theirs = torch.where(seen, theirs.clamp_min(1e-30).log(), ours)
        self._measure(ours, theirs, center=ours.mean(1, keepdim=True))
        first, chosen = ours.argmax(1), theirs.argmax(1)
        margin = ours.gather(1, first[:, None]) - ours.gather(1, chosen[:, None])  # (B, 1), 0 where they agree
        self.num_agreeing += int((margin <= 2 * _tolerance_of(ours)).sum())
        if targets is not None:
            self.num_labeled += len(targets)
            self.correct_source += int((first == targets).sum())
            self.correct_artifact += int((chosen == targets).sum())

    def _measure(self, ours: Tensor, theirs: Tensor, center: Tensor) -> None:
        """Add the differences of logits, and the spread of `ours` around `center`."""
        self.num_images += len(ours)
        self.finite &= bool(theirs.isfinite().all() and ours.isfinite().all())
        difference = (theirs - ours).abs()
        self.max_difference = max(self.max_difference, difference.max().item())
        self.max_logit = max(self.max_logit, ours.abs().max().item())
        self.squares += difference.square().sum().item()
        self.spread += (ours - center).square().sum().item()

    def interval95(self) -> tuple[float, float] | None:
        """Of `artifact_percent`; None where it is not a share of the images."""
        return EvalResult(self.num_labeled, self.correct_artifact, 0, 0.0).interval95()

    def as_dict(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "num_images": self.num_images,
            "max_difference": _short(self.max_difference),
            "relative_error": _short(self.error),
            f"{self.METRIC}_agreement": self.agreement_percent,
        }
        if self.num_labeled:
            facts[f"{self.METRIC}_source"] = round(self.source_percent, 3)
            facts[f"{self.METRIC}_artifact"] = round(self.artifact_percent, 3)
        return facts


@dataclass
class MultiLabelComparison(Comparison):
    """The result on images that may have any number of classes: the answer is the set of those above `thresholds`.

    Attributes:
        thresholds: (num_classes,) probabilities.
        seen: the source's logits, the artifact's, and the targets, (B, num_classes) each, of the batches with labels.
    """

    thresholds: np.ndarray = field(default_factory=lambda: np.empty(0))
    seen: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    METRIC: ClassVar[str] = "mAP"
    TITLE: ClassVar[str] = "mAP"
    ANSWER: ClassVar[str] = "set of labels"

    @property
    def source_percent(self) -> float:
        return self._mean_average_precision(0)

    @property
    def artifact_percent(self) -> float:
        return self._mean_average_precision(1)

    @property
    def num_lost(self) -> float:
        """The loss of mAP as a number of images."""
        return (self.source_percent - self.artifact_percent) / 100 * self.num_labeled if self.num_labeled else 0.0

    def add(self, logits: Tensor, outputs: Tensor, targets: Tensor | None, *, probabilities: bool) -> None:
        theirs = outputs.logit() if probabilities else outputs
        near = [scores.clamp(*_LOGITS) if probabilities else scores for scores in (logits, theirs)]
        self._measure(*near, center=near[0].mean())
        edges = torch.from_numpy(self.thresholds).logit()  # (num_classes,)
        tied = (near[0] - edges).abs() <= _tolerance_of(near[0])
        self.num_agreeing += int((((logits >= edges) == (theirs >= edges)) | tied).all(1).sum())
        if targets is not None:
            self.num_labeled += len(targets)
            self.seen.append((logits, theirs, targets))

    def interval95(self) -> None:
        return None

    def _mean_average_precision(self, which: Literal[0, 1]) -> float:
        """In percent, over the classes that an image has; 0 if there are none."""
        scores = torch.cat([batch[which] for batch in self.seen]).numpy()
        has = torch.cat([targets for _, _, targets in self.seen]).numpy()
        found = [average_precision(scores[:, column], has[:, column]) for column in np.flatnonzero(has.any(0))]
        return 100 * sum(found) / max(1, len(found))


def new_comparison(thresholds: np.ndarray | None) -> Comparison:
    """For images of any number of classes if there are `thresholds`, else for those of one class."""
    return Comparison() if thresholds is None else MultiLabelComparison(thresholds=thresholds)


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
    thresholds: np.ndarray | None = None,
) -> Comparison:
    """Run an artifact on images for which the source's logits are known.

    Args:
        batches: pixels (B, C, H, W) uint8, the source's logits (B, num_classes), and targets if they are known.
        to_input: pixels -> the input of the artifact.
        thresholds: see `new_comparison`.
    """
    found = new_comparison(thresholds)
    for pixels, logits, targets in batches:
        outputs = torch.from_numpy(session(to_input(pixels))).to(torch.float64)
        found.add(logits.to(torch.float64), outputs, targets, probabilities=gives_probabilities)
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
            verdict.problems.append(f"{found.ANSWER} differs on {lost:,} of {found.num_images:,} {words}")
    if precision == "fp32" or verdict.problems:
        return verdict
    seen = real or made_up
    if not seen.error <= MAX_ERROR[precision]:
        share = f"{100 * seen.error:.2g} % of their spread"
        verdict.problems.append(f"logits differ by {share}; {100 * MAX_ERROR[precision]:g} % is allowed")
    if seen.num_lost > max(1, int(seen.num_labeled * MAX_DROP / 100)):
        drop = f"{100 * seen.num_lost / seen.num_labeled:.2f} points on {seen.num_labeled:,} images"
        verdict.problems.append(f"{seen.TITLE} falls by {drop}; {MAX_DROP} are allowed")
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


def _tolerance_of(logits: Tensor) -> Tensor:
    """(B, num_classes) -> (B, 1): fp32's tolerance for each image, whatever the others are."""
    return (MAX_SHARE * logits.abs().amax(1, keepdim=True)).clamp_min(MAX_DIFFERENCE)


def _short(number: float) -> float | None:
    """Three digits; None for a number that JSON cannot represent."""
    return float(f"{number:.3g}") if math.isfinite(number) else None


def _clouds(shape: tuple[int, int, int], cells: int, generator: torch.Generator) -> Tensor:
    """Smooth colored noise."""
    coarse = 256 * torch.rand((1, shape[0], cells, cells), generator=generator)
    return torch.nn.functional.interpolate(coarse, shape[1:], mode="bicubic", align_corners=False)[0]
