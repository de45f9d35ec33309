"""The loss of a classifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from vitcli.recipe.schema.key import Probability, Section, key, without_effect

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe


class Loss(Section):
    loss: Literal["CE", "BCE"] = key("CE", "Cross entropy, or binary cross entropy per class.")
    label_smoothing: float = key(0.0, "Share of the target that is spread over all classes.", ge=0, lt=1)
    bce_target_thresh: Probability | None = key(
        None, "BCE: after mixing and smoothing, set targets above this to 1 and all others to 0. null: keep them."
    )
    bce_sum: bool = key(False, "BCE: sum over the classes instead of their mean.")
    reduction: Literal["mean"] = key("mean", "The loss is the mean over the batch.")

    def notes(self, recipe: Recipe) -> Iterator[str]:
        ignored = recipe.sets("bce_target_thresh", "bce_sum")
        if ignored and self.loss != "BCE":
            yield f"{without_effect(ignored)} without `loss: BCE`"
