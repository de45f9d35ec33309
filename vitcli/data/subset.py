"""A smaller training split: a number of images in all, or a number or share of each class."""

from collections.abc import Callable

import numpy as np

from vitcli.data.source import Source
from vitcli.data.streams import stream_seed
from vitcli.errors import UsageError
from vitcli.recipe.schema import Dataset


def limited(source: Source, section: Dataset, seed: int) -> Source:
    """The part of `source` that the keys `num_samples`, `num_samples_per_class` or `num_samples_ratio` ask for.

    Raises:
        UsageError: `num_samples_per_class` without labels.
    """
    wanted, ratio = section.num_samples_per_class, section.num_samples_ratio
    if section.num_samples is not None:
        return source.subset(section.num_samples)
    if ratio is not None:
        return stratified(source, lambda count: max(1, round(ratio * count)), seed)
    if wanted is None:
        return source
    if source.targets is None:
        raise UsageError(
            "num_samples_per_class is given, but the images have no labels",
            help="give num_samples or num_samples_ratio instead",
        )
    chosen = stratified(source, lambda count: min(wanted, count), seed)
    counts = chosen.class_counts().values()
    if small := sum(count < wanted for count in counts):
        chosen.notes.append(f"{small} of {len(counts)} classes have fewer than {wanted} images; all of these are used")
    return chosen


def stratified(source: Source, quota: Callable[[int], int], seed: int) -> Source:
    """`quota(n)` of the n images of each class, in their order; without labels, of all images.

    The images of a class are put in an order that is a function of the seed and their names, and the first ones are
    chosen. So a smaller quota chooses a part of what a larger one chooses, and no image depends on the others.
    """
    keys = np.array([stream_seed(f"subset {source.name(index)}", seed) for index in range(len(source))])
    classes = np.zeros(len(source), dtype=np.int64) if source.targets is None else source.targets
    order = np.lexsort((keys, classes))
    ends = np.cumsum(np.bincount(classes))
    chosen = [part[: quota(len(part))] for part in np.split(order, ends[:-1]) if len(part)]
    return source.select(np.sort(np.concatenate(chosen)))
