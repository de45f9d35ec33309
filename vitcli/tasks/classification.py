"""Supervised classification: one view, one label, cross entropy."""

import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.data.mixing import BatchPreparer
from vitcli.errors import UsageError
from vitcli.recipe.load import Recipe
from vitcli.recipe.schema import Loss
from vitcli.tasks.task import Measurement, Task, TaskOutput


class Classification(Task):
    """`network`: images (B, C, H, W) -> logits (B, num_classes)."""

    evaluators = ("top1",)
    primary = "top1"

    def __init__(self, recipe: Recipe, network: nn.Module, class_names: list[str] | None) -> None:
        super().__init__(recipe, network, class_names)
        self.section, self.num_classes = recipe.loss, len(class_names or ())
        _check_threshold(recipe.loss, self.num_classes)
        self.preparer = BatchPreparer(recipe.augmentation, self.num_classes, in_channels=recipe.model.in_channels)

    def forward(self, batch: Batch) -> TaskOutput:
        logits = self.network(batch.images).float()  # (B, num_classes)
        assert batch.targets is not None
        return TaskOutput(self._loss(logits, batch.targets), {})

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """targets: class indices (B,), or probabilities (B, num_classes) where images were mixed."""
        section = self.section
        if section.loss == "CE":
            return F.cross_entropy(logits, targets, label_smoothing=section.label_smoothing)
        if targets.ndim == 1:
            targets = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
        targets = targets * (1 - section.label_smoothing) + section.label_smoothing / logits.shape[1]
        if section.bce_target_thresh is not None:
            targets = (targets > section.bce_target_thresh).to(targets.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        return loss * logits.shape[1] if section.bce_sum else loss

    def notes(self, *, accumulation: int, world_size: int) -> list[str]:
        few = 0 < self.num_classes <= 5
        return [f"with {self.num_classes} classes, top5 is always 100"] if few else []

    def measurements(self, network: nn.Module) -> list[Measurement]:
        return [Measurement("top1", network)]


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
