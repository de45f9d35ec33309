"""Supervised classification: one forward pass from a batch to its loss. The loop knows nothing else of it."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.recipe.schema import Loss as Section


class Batch(NamedTuple):
    """What the device works on in one micro-step."""

    images: Tensor  #: (B, C, H, W) normalized
    targets: Tensor  #: (B,) class indices, or (B, num_classes) probabilities where images were mixed


class TaskOutput(NamedTuple):
    loss: Tensor  #: () mean over the batch
    metrics: dict[str, Tensor]  #: name -> () mean over the batch, detached


class Classification(nn.Module):
    """Model and loss together; DDP and torch.compile wrap this module.

    Args:
        model: images (B, C, H, W) -> logits (B, num_classes).
        section: `loss` CE or BCE, `label_smoothing`; of BCE `bce_target_thresh` and `bce_sum`.
    """

    def __init__(self, model: nn.Module, section: Section) -> None:
        super().__init__()
        self.model = model
        self.kind = section.loss
        self.smoothing = section.label_smoothing
        self.threshold, self.sum_classes = section.bce_target_thresh, section.bce_sum

    def forward(self, batch: Batch) -> TaskOutput:
        logits = self.model(batch.images).float()  # (B, num_classes); losses are computed in fp32 under autocast too
        return TaskOutput(self._loss(logits, batch.targets), {})

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.kind == "CE":
            return F.cross_entropy(logits, targets, label_smoothing=self.smoothing)
        if targets.ndim == 1:
            targets = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
        targets = targets * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        if self.threshold is not None:
            targets = (targets > self.threshold).to(targets.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        return loss * logits.shape[1] if self.sum_classes else loss

    def after_step(self, step: int) -> None:
        """Called after each optimizer step; classification has nothing to do."""
