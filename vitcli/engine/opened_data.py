"""The data of a training run, with everything that the recipe leaves to it. Rank 0 looks, the others are told."""

import platform
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import numpy as np

from vitcli import catalog
from vitcli.data.class_weights import settled_weights, weight_rows
from vitcli.data.datasets import Splits, build_splits
from vitcli.data.listings import listings_in
from vitcli.data.source import Source
from vitcli.distributed import decided_on_main, gathered
from vitcli.errors import DataError
from vitcli.log import Reporter, phase
from vitcli.networks.classes import check_num_classes
from vitcli.recipe.load import Recipe
from vitcli.tasks.task import Task

Found = TypeVar("Found", bound=tuple[Source | None, ...])
LISTING = "listing.safetensors"
#: images of each split that every rank compares with those of rank 0
_NUM_COMPARED = 64


def open_data(recipe: Recipe, reporter: Reporter, run_dir: Path | None = None) -> tuple[Recipe, Splits]:
    """Both splits, and the recipe with the weight of each class; every rank must call it.

    run_dir: where the listing of many files is kept for the next start of the run.

    Raises:
        DataError: a rank has other images than rank 0, on a disk of its own. VitcliError: as `build_splits`.
    """
    task: type[Task] = catalog.load("tasks", recipe.learning.task)

    def find() -> tuple[Source, Source | None]:
        with listings_in(run_dir / LISTING) if run_dir else nullcontext():
            splits = build_splits(
                recipe.dataset,
                task.needs_labels,
                needs_val=recipe.system.val_while_train,
                multi_label=task.multi_label,
                seed=recipe.system.seed,
            )
        return splits.train, splits.val

    splits = Splits(*found_on_main(find))
    reporter.notes(splits.train.notes, splits.val.notes if splits.val else ())
    if splits.class_names is not None:
        check_num_classes(recipe, splits.class_names)
    return _with_class_weights(recipe, splits, reporter), splits


def found_on_main(find: Callable[[], Found]) -> Found:
    """The images that `find` finds on rank 0, on every rank, which looks whether it has them too.

    Raises:
        DataError: a rank has other images. VitcliError: as `find`.
    """
    with phase("listing images"):
        sources = decided_on_main(find)
    mine = [_sample_digest(source) for source in sources if source is not None]
    ranks = gathered((platform.node(), mine))
    for rank, (host, digests) in enumerate(ranks):
        if digests != ranks[0][1]:
            message = f"rank {rank} on {host} does not see the images that rank 0 found on {ranks[0][0]}"
            raise DataError(message, help="give every machine the same data under the same path, or share one disk")
    return sources


def _sample_digest(source: Source) -> str:
    """Of some images; of files names and sizes, for copies have other times."""
    rows = np.unique(np.linspace(0, len(source) - 1, _NUM_COMPARED).astype(np.int64))
    try:
        facts = source.select(rows).fingerprint()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return facts.get("contents_sha256") or facts["sha256"]


def _with_class_weights(recipe: Recipe, splits: Splits, reporter: Reporter) -> Recipe:
    """The recipe with the weight of each class; `auto` is a function of the data, so a resumed run finds the same."""
    given = recipe.loss.class_weights
    if given is None or splits.class_names is None or not catalog.load("tasks", recipe.learning.task).needs_labels:
        return recipe
    weights = settled_weights(splits.train, given)
    reporter.table("class weights", weight_rows(splits.train, weights))
    return recipe.changed("the images", class_weights=weights) if given == "auto" else recipe
