"""What an evaluator is to the rest of the program: from a network to named numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.data.crops import Crops
from vitcli.data.source import Source
from vitcli.distributed import World
from vitcli.errors import DataError
from vitcli.recipe.load import Recipe

#: called with each batch (on the device, with its `indices` and `targets`) and the answers to it (B, …)
Answers = Callable[[Batch, Tensor], None]
#: asked between two batches whether to stop
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class Setting:
    """What an evaluator measures with."""

    recipe: Recipe
    val: Source | None  #: None where the data has no validation split
    world: World
    autocast: Callable[[], torch.autocast]
    train: Source | None = None  #: may be None unless the evaluator `needs_train`
    crops: Crops | None = None  #: how many crops of an image are averaged; None: one


class Stopped(Exception):
    """The evaluation was asked to stop; its counts are incomplete and were dropped."""


def never() -> bool:
    """The `should_stop` of an evaluation that runs to its end."""
    return False


class Evaluator(Protocol):
    """Built as `catalog.load("evaluators", name)(setting)`; exact over any number of ranks, all of which call it."""

    needs_train: bool = False  #: whether it looks at the training split too
    needs_classifier: bool = False  #: whether the network must return logits, not features
    metrics: tuple[str, ...]  #: the numbers that an epoch's line shows

    def __init__(self, setting: Setting) -> None: ...

    def __call__(
        self, network: nn.Module, *, should_stop: ShouldStop = never, answers: Answers | None = None
    ) -> dict[str, float]:
        """All numbers, `metrics` among them; the mode of each module of the network is left as it was.

        Raises:
            Stopped: `should_stop` returned True between two batches, on any rank.
        """
        ...

    def rows(self, numbers: dict[str, float]) -> list[tuple[str, str]]:
        """The rows of a table that show `numbers` to a person."""
        ...

    def warning(self, numbers: dict[str, float]) -> str | None:
        """What a person should be warned about; None: nothing."""
        return None


def with_labels(source: Source | None, split: str, evaluator: str) -> Source:
    """`source`; DataError if there is no such split, or if it has no labels."""
    if source is None or source.targets is None:
        problem = "there are none" if source is None else "they have no labels"
        help = "put the images into one folder per class, or choose other evaluators with --evaluate"
        raise DataError(f"the evaluator {evaluator} needs labeled {split} images, and {problem}", help=help)
    return source
