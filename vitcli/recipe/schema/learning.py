"""What is learned, by which loss, and how the network is measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from vitcli.recipe.schema.key import Finding, Name, Probability, Section, key, without_effect

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe


class Learning(Section):
    task: Name = key(
        "classification",
        "What is learned. classification: one class per image; multilabel: any number of classes per image; byol: "
        "features, without labels.",
        registry="tasks",
    )
    projector_hidden_dim: int = key(4096, "BYOL: hidden width of the projector.", ge=1)
    projector_dim: int = key(256, "BYOL: width of the projections.", ge=2)
    predictor_hidden_dim: int = key(4096, "BYOL: hidden width of the predictor.", ge=1)
    target_decay: Probability = key(
        0.99, "BYOL: decay per step of the target, the moving average of the network, in the first step."
    )
    target_decay_end: Probability = key(1.0, "BYOL: decay of the target in the last step; a cosine leads to it.")
    online_probe_lr: float | None = key(
        None, "BYOL: peak learning rate of the linear probe that is trained along with the network. Default: lr.", gt=0
    )

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        if self.task != "byol":
            return
        wrong = {
            "mixup": (recipe.augmentation.mixup > 0, "it mixes labels; set it to 0"),
            "cutmix": (recipe.augmentation.cutmix > 0, "it mixes labels; set it to 0"),
            "quantize": (recipe.model.quantize != "none", "train in float, fine-tune with labels, then use int8_qat"),
            "drop_remainder": (not recipe.dataset.drop_remainder, "the last batch may be too small; set it to true"),
        }
        for name, (is_wrong, help) in wrong.items():
            if is_wrong:
                yield name, f"`task: byol` does not work with `{name}: {recipe.get(name)}`", help

    def notes(self, recipe: Recipe) -> Iterator[str]:
        names = ("projector_hidden_dim", "projector_dim", "predictor_hidden_dim", "target_decay", "target_decay_end")
        if self.task in ("classification", "multilabel"):
            yield from without_effect(recipe, *names, "online_probe_lr", why=f" with `task: {self.task}`")
        if self.task == "byol":
            yield from without_effect(recipe, *Loss.model_fields, why=" with `task: byol`, which has its own loss")


class Loss(Section):
    loss: Literal["CE", "BCE", "ASL"] = key(
        "CE",
        "Cross entropy (with task multilabel that of each class, the same as BCE), binary cross entropy per class, or "
        "for task multilabel the asymmetric loss (arXiv 2009.14119).",
    )
    label_smoothing: float = key(
        0.0,
        "Share of the target that is spread over all classes; with task multilabel over yes and no of each class.",
        ge=0,
        lt=1,
    )
    bce_target_thresh: Probability | None = key(
        None, "BCE: after mixing and smoothing, set targets above this to 1 and all others to 0. null: keep them."
    )
    bce_sum: bool = key(False, "BCE: sum over the classes instead of their mean.")
    asl_gamma_neg: float = key(
        4.0, "ASL: exponent by which the easy ones among the classes that an image does not have count less.", ge=0
    )
    asl_gamma_pos: float = key(0.0, "ASL: the same exponent for the classes that an image has.", ge=0)
    asl_clip: float = key(
        0.05, "ASL: a class that an image does not have costs nothing up to this probability.", ge=0, lt=1
    )
    class_weights: Literal["auto"] | tuple[Annotated[float, Field(ge=0)], ...] | None = key(
        None,
        "Weight of each class in the loss, in the order of the classes. auto: inversely proportional to its number of "
        "training images, 1 in the mean over the images. Default: all are equal.",
    )
    reduction: Literal["mean"] = key("mean", "The loss is the mean over the batch.")

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        multi_label = recipe.learning.task == "multilabel"
        if self.loss == "ASL" and recipe.learning.task == "classification":
            yield "loss", "`loss: ASL` is for any number of classes per image", "add task: multilabel, or use CE or BCE"
        if multi_label and self.class_weights is not None:
            yield "class_weights", "`class_weights` is for one class per image", "remove it, or use loss: ASL"
        threshold, smoothed = self.bce_target_thresh, self.label_smoothing / 2
        if multi_label and self.loss != "ASL" and threshold is not None and threshold < smoothed:
            gives = (
                f"`label_smoothing: {self.label_smoothing:g}` gives a class that an image does not have {smoothed:g}"
            )
            message = f"{gives}, which is more than `bce_target_thresh: {threshold:g}`: all targets would become 1"
            yield "bce_target_thresh", message, "raise bce_target_thresh, or lower label_smoothing"

    def notes(self, recipe: Recipe) -> Iterator[str]:
        if self.loss != "ASL":
            yield from without_effect(recipe, "asl_gamma_neg", "asl_gamma_pos", "asl_clip", why=" without `loss: ASL`")
        if self.loss == "ASL" or (self.loss == "CE" and recipe.learning.task != "multilabel"):
            yield from without_effect(recipe, "bce_target_thresh", "bce_sum", why=" without `loss: BCE`")
        if self.class_weights == "auto" and recipe.dataset.sampler == "balanced":
            yield "`sampler: balanced` and `class_weights: auto` both favor rare classes: their effects multiply"


class Evaluation(Section):
    evaluate: tuple[Name, ...] | None = key(
        None,
        "Evaluators that measure the network. Default: those of the task.",
        free=True,
        registry="evaluators",
        min_length=1,
    )
    knn_k: int = key(20, "Neighbors that vote in the kNN evaluation.", ge=1, free=True)
    knn_temperature: float = key(0.07, "A neighbor's vote has the weight exp(cosine / this).", gt=0, free=True)
    knn_num_samples: int | None = key(
        None, "Training images among which kNN looks for neighbors. Default: all.", ge=1, free=True
    )
    probe_epochs: int = key(100, "Epochs of the linear probe.", ge=1, free=True)
    probe_lr: float = key(0.3, "Learning rate of the linear probe for 256 images.", gt=0, free=True)
    probe_batch_size: int = key(256, "Features per step of the linear probe.", ge=1, free=True)
    report: bool = key(
        False, "At the end of the training, write RUN/report/report.html, a page about the best checkpoint.", free=True
    )
