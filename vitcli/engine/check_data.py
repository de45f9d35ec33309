"""Reads images before the first step (`check_data`): what cannot be read, and what is in both splits."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vitcli.data.datasets import Splits
from vitcli.data.source import Source
from vitcli.data.survey import survey
from vitcli.distributed import World, gathered
from vitcli.errors import DataError
from vitcli.recipe.load import Recipe
from vitcli.terminal import phase

#: images of each split that `quick` reads, evenly spread over it
NUM_QUICK = 200


@dataclass(frozen=True)
class CheckedSplit:
    """What was read of a split, over all ranks."""

    num_read: int
    unreadable: list[str]  #: "name: reason"
    digests: list[tuple[str, bytes]]  #: the name of each readable image, and a digest of its pixels; by name


def check_splits(splits: Splits, extent: Literal["quick", "full"], world: World) -> dict[str, CheckedSplit]:
    """Read a part or all of both splits, each rank its share; every rank must call it."""
    sources = {"train": splits.train} | ({"val": splits.val} if splits.val is not None else {})
    return {
        name: _checked(source.subset(NUM_QUICK) if extent == "quick" else source, world)
        for name, source in sources.items()
    }


def _checked(source: Source, world: World) -> CheckedSplit:
    own = source.select(np.arange(world.rank, len(source), world.size))
    with phase("reading images", len(own)) as advance:
        found = survey(own, lambda: advance(1))
    unreadable = [f"{found.source.name(index)}: {reason}" for index, reason in found.unreadable]
    digests = list(zip(found.names(np.arange(len(found.indices))), found.digests, strict=True))
    parts = gathered((unreadable, digests))
    all_unreadable, all_digests = (sorted(one for part in parts for one in part[which]) for which in (0, 1))
    return CheckedSplit(len(source), all_unreadable, all_digests)


def leaks_of(checked: dict[str, CheckedSplit]) -> list[tuple[str, str]]:
    """(training image, validation image) with equal pixels, among those that were read."""
    if "val" not in checked:
        return []
    train = {digest: name for name, digest in reversed(checked["train"].digests)}
    return [(train[digest], name) for name, digest in checked["val"].digests if digest in train]


def check_data(recipe: Recipe, splits: Splits, world: World) -> list[str]:
    """What `check_data` asks for in a training; returns notes.

    Raises:
        DataError: images cannot be read, and the run would fail on them.
    """
    if recipe.dataset.check_data in (None, "off"):
        return []
    checked = check_splits(splits, recipe.dataset.check_data, world)
    notes = [f"{len(leaks):,} validation images are in training too" for leaks in [leaks_of(checked)] if leaks]
    for name, split in checked.items():
        if not split.unreadable:
            continue
        what = f"{len(split.unreadable):,} of {split.num_read:,} images read of the split {name} cannot be read"
        if name == "train" and recipe.dataset.on_bad_image == "skip":
            notes.append(what)
            continue
        lines = [f"  {line}" for line in split.unreadable[:10]]
        lines += [f"  … and {len(split.unreadable) - 10:,} more"] * (len(split.unreadable) > 10)
        raise DataError("\n".join([f"{what}:", *lines]), help="fix or remove them; nothing was trained yet")
    return notes
