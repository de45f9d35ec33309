"""Supervised classification: one view, one label, cross entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.data.mixing import BatchPreparer
from vitcli.errors import UsageError
from vitcli.recipe.load import Recipe
from vitcli.recipe.schema import Loss
from vitcli.tasks.task import Measurement, Task, TaskOutput


class Classification(Task):
    """`network`: images (B, C, H, W) -> logits (B, num_classes).

    With `class_weights`, the loss is the weighted mean: the sum over the images of a micro-batch, divided by the sum of
    their weights. For labels and CE this is torch's `cross_entropy(weight=…)`. For mixed images torch divides by their
    number instead, so that the loss would jump where mixing ends. BCE weights an image, not an output: a factor for all
    of one output's terms would not change the balance between images with and without that class.
    """

    evaluators = ("top1",)
    primary = "top1"
    class_weights: Tensor | None  #: (num_classes,); None: all are equal

    def __init__(self, recipe: Recipe, network: nn.Module, class_names: list[str] | None) -> None:
        super().__init__(recipe, network, class_names)
        self.section, self.num_classes = recipe.loss, len(class_names or ())
        _check_threshold(recipe.loss, self.num_classes)
        weights = recipe.loss.class_weights
        assert weights != "auto", "data.class_weights.settled_weights says what these are"
        self.register_buffer("class_weights", None if weights is None else torch.tensor(weights), persistent=False)
        self.preparer = BatchPreparer(recipe.augmentation, self.num_classes, in_channels=recipe.model.in_channels)

    def forward(self, batch: Batch) -> TaskOutput:
        logits = self.network(batch.images).float()  # (B, num_classes)
        assert batch.targets is not None
        return TaskOutput(self._loss(logits, batch.targets), {})

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """targets: class indices (B,), or probabilities (B, num_classes) where images were mixed."""
        section, weights = self.section, self.class_weights
        if section.loss == "BCE":
            return self._binary_loss(logits, targets)
        if weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=section.label_smoothing)
        total = F.cross_entropy(logits, targets, weights, label_smoothing=section.label_smoothing, reduction="sum")
        return total / _weights_of(targets, weights).sum()

    def _binary_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        section, labels = self.section, targets
        if targets.ndim == 1:
            targets = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
        targets = targets * (1 - section.label_smoothing) + section.label_smoothing / logits.shape[1]
        if section.bce_target_thresh is not None:
            targets = (targets > section.bce_target_thresh).to(targets.dtype)
        if self.class_weights is None:
            loss = F.binary_cross_entropy_with_logits(logits, targets)
        else:
            weights = _weights_of(labels, self.class_weights)
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)  # (B,)
            loss = (losses * weights).sum() / weights.sum()
        return loss * logits.shape[1] if section.bce_sum else loss

    def notes(self, *, accumulation: int, world_size: int) -> list[str]:
        few = 0 < self.num_classes <= 5
        return [f"with {self.num_classes} classes, top5 is always 100"] if few else []

    def measurements(self, network: nn.Module) -> list[Measurement]:
        return [Measurement("top1", network)]


def _weights_of(targets: Tensor, class_weights: Tensor) -> Tensor:
    """(B,) the weight of each image: that of its class, or the mean of those that were mixed, by their shares."""
    return class_weights[targets] if targets.ndim == 1 else targets @ class_weights


def _check_threshold(section: Loss, num_classes: int) -> None:
    """Raise UsageError if the threshold of BCE is below the target that smoothing gives to all other classes."""
    threshold, smoothing = section.bce_target_thresh, section.label_smoothing
    if section.loss != "BCE" or threshold is None or not (num_classes and smoothing):
        return
    if threshold > smoothing / num_classes:
        return
    others = f"label_smoothing {smoothing:g} gives all {num_classes} classes a target of {smoothing / num_classes:.3g}"
    message = f"{others}, and bce_target_thresh is {threshold:g}: all targets would become 1"
    raise UsageError(message, help="raise bce_target_thresh, or lower label_smoothing")
