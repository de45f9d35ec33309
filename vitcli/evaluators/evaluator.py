"""What an evaluator is to the rest of the program: from a network to named numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vitcli.data.batch import BadSample, Batch
from vitcli.data.crops import Crops
from vitcli.data.source import Source
from vitcli.distributed import World
from vitcli.errors import DataError
from vitcli.recipe.load import Recipe

#: called with each batch (on the device, with its `indices` and `targets`) and the answers to it (B, …)
Answers = Callable[[Batch, Tensor], None]
#: asked between two batches whether to stop
ShouldStop = Callable[[], bool]
#: begins the names of the numbers by the first crop alone, where many are averaged
SINGLE_CROP = "single_crop_"


@dataclass(frozen=True)
class Setting:
    """What an evaluator measures with."""

    recipe: Recipe
    val: Source | None  #: None where the data has no validation split
    world: World
    autocast: Callable[[], torch.autocast]
    train: Source | None = None  #: may be None unless the evaluator `needs_train`
    crops: Crops | None = None  #: how many crops of an image are averaged; None: one
    #: what an earlier evaluation found, see `Evaluator.findings`; None: the network is in training, to be found now
    findings: Mapping[str, Any] | None = None


class Stopped(Exception):
    """The evaluation was asked to stop; its counts are incomplete and were dropped."""


class UnreadableImages(DataError):
    """Images that cannot be evaluated: all of the split, over all ranks."""

    def __init__(self, bad: list[BadSample], num_images: int) -> None:
        super().__init__("", help="fix or remove them: an evaluation skips no image")
        self.bad, self.num_images = bad, num_images
        self.message = self.listing(10)

    def listing(self, most: int | None = None) -> str:
        """The message, with the names and reasons of the first `most` images; None: of all."""
        head = f"{len(self.bad):,} of {self.num_images:,} images to evaluate cannot be read:"
        lines = [f"  {sample.name}: {sample.reason}" for sample in self.bad[:most]]
        hidden = len(self.bad) - len(lines)
        return "\n".join([head, *lines] + [f"  … and {hidden:,} more"] * bool(hidden))


def never() -> bool:
    """The `should_stop` of an evaluation that runs to its end."""
    return False


class Evaluator(Protocol):
    """Built as `catalog.load("evaluators", name)(setting)`; exact over any number of ranks, all of which call it."""

    needs_train: bool = False  #: whether it looks at the training split too
    needs_classifier: bool = False  #: whether the network must return logits, not features
    takes_crops: bool = False  #: whether it can average many crops of an image
    metrics: tuple[str, ...]  #: the numbers that an epoch's line shows

    def __init__(self, setting: Setting) -> None: ...

    def __call__(
        self, network: nn.Module, *, should_stop: ShouldStop = never, answers: Answers | None = None
    ) -> dict[str, float]:
        """All numbers, `metrics` among them; the mode of each module of the network is left as it was.

        Raises:
            Stopped: `should_stop` returned True between two batches, on any rank.
            UnreadableImages: all that there are; `EvalImages.visit` raises it.
        """
        ...

    def rows(self, numbers: dict[str, float]) -> list[tuple[str, str]]:
        """The rows of a table that show `numbers` to a person."""
        ...

    def findings(self) -> dict[str, Any]:
        """What a user of the network needs besides it and the last call found; it goes into the checkpoint."""
        return {}

    def warning(self, numbers: dict[str, float]) -> str | None:
        """What a person should be warned about; None: nothing."""
        return None


def with_labels(source: Source | None, split: str, evaluator: str, *, multi_label: bool = False) -> Source:
    """`source`; DataError if there is no such split, or if it has no labels of this kind.

    multi_label: as multi-label data, whether or not it is; otherwise each image must have one class.
    """
    if source is None or source.targets is None:
        problem = "there are none" if source is None else "they have no labels"
        help = "put the images into one folder per class, or choose other evaluators with --evaluate"
        raise DataError(f"the evaluator {evaluator} needs labeled {split} images, and {problem}", help=help)
    if multi_label:
        return source if source.multi_label else source.with_one_label_each()
    if source.multi_label:
        message = f"the evaluator {evaluator} needs one class per image, and the {split} images have several or none"
        raise DataError(message, help="choose --evaluate multilabel")
    return source
