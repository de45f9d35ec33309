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
from vitcli.recipe.load import Recipe

#: called with each batch (on the device, with its `indices` and `targets`) and the answers to it (B, …)
Answers = Callable[[Batch, Tensor], None]


@dataclass(frozen=True)
class Setting:
    """What an evaluator measures with.

    train: None unless the evaluator `needs_train`. crops: how many crops of an image are averaged; None: one.
    """

    recipe: Recipe
    val: Source
    world: World
    autocast: Callable[[], torch.autocast]
    train: Source | None = None
    crops: Crops | None = None


class Stopped(Exception):
    """The evaluation was asked to stop; its counts are incomplete and were dropped."""


class Evaluator(Protocol):
    """Built as `catalog.load("evaluators", name)(setting)`; exact over any number of ranks, all of which call it."""

    needs_train: bool  #: whether it looks at the training split too
    metrics: tuple[str, ...]  #: the numbers that an epoch's line shows

    def __call__(
        self, network: nn.Module, *, should_stop: Callable[[], bool] = ..., answers: Answers | None = None
    ) -> dict[str, float]:
        """All numbers, `metrics` among them; the network's mode is left as it was.

        Raises:
            Stopped: `should_stop` said so between two batches, on any rank.
        """
        ...

    def rows(self, numbers: dict[str, float]) -> list[tuple[str, str]]:
        """The rows of a table that show `numbers` to a person."""
        ...
