"""Supervised learning of any number of classes per image: a yes or no for each class, by a sigmoid of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.data.mixing import BatchPreparer
from vitcli.recipe.load import Recipe
from vitcli.tasks.task import Measurement, Task, TaskOutput

#: smallest probability that is raised to a power: the derivative of a power below 1 is infinite at 0
_LEAST = 1e-8


class MultiLabel(Task):
    """`network`: images (B, C, H, W) -> logits (B, num_classes), the sigmoid of which is the probability of the class.

    Targets are mixed as images are: lam of one image and 1 - lam of the other. With mixing, `bce_target_thresh: 0`
    gives the mixed image all classes of both.
    """

    multi_label = True
    evaluators = ("multilabel",)
    primary = "mAP"

    def __init__(self, recipe: Recipe, network: nn.Module, class_names: list[str] | None) -> None:
        super().__init__(recipe, network, class_names)
        self.section = recipe.loss
        num_classes = len(class_names or ())
        self.preparer = BatchPreparer(recipe.augmentation, num_classes, in_channels=recipe.model.in_channels)

    def forward(self, batch: Batch) -> TaskOutput:
        logits = self.network(batch.images).float()  # (B, num_classes)
        assert batch.targets is not None
        return TaskOutput(self._loss(logits, batch.targets.to(logits.dtype)), {})

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """targets: (B, num_classes) in [0, 1]."""
        section = self.section
        targets = targets * (1 - section.label_smoothing) + section.label_smoothing / 2
        if section.loss == "ASL":
            gammas = {"gamma_neg": section.asl_gamma_neg, "gamma_pos": section.asl_gamma_pos}
            return asymmetric_loss(logits, targets, **gammas, clip=section.asl_clip)
        if section.bce_target_thresh is not None:
            targets = (targets > section.bce_target_thresh).to(targets.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        return loss * logits.shape[1] if section.bce_sum else loss

    def measurements(self, network: nn.Module) -> list[Measurement]:
        return [Measurement("multilabel", network)]


def asymmetric_loss(logits: Tensor, targets: Tensor, *, gamma_neg: float, gamma_pos: float, clip: float) -> Tensor:
    """The asymmetric loss (Ridnik et al. 2021, arXiv 2009.14119, equations 4 to 6), summed over classes, mean over B.

    For a class that the image has: (1 - p)^gamma_pos log(p). For one that it does not have: q^gamma_neg log(1 - q),
    where q = max(p - clip, 0), so that very easy ones cost nothing. A soft target weighs the two.

    Args:
        logits, targets: (B, num_classes); targets in [0, 1].
    """
    probability = logits.sigmoid()
    has = (1 - probability).clamp_min(_LEAST).pow(gamma_pos) * F.logsigmoid(logits)
    shifted = (probability - clip).clamp_min(_LEAST)
    log_of_rest = torch.log1p(-shifted) if clip else F.logsigmoid(-logits)  # which is exact where 1 - p rounds to 0
    has_not = shifted.pow(gamma_neg) * log_of_rest
    return -(targets * has + (1 - targets) * has_not).sum(1).mean()
