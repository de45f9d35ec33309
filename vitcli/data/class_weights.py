"""Weights of the classes in the loss: what `class_weights: auto` means, and what a list of them must look like."""

import numpy as np

from vitcli.data.source import Source
from vitcli.errors import UsageError

#: classes of each end that the table shows
NUM_SHOWN = 3


def settled_weights(source: Source, given: tuple[float, ...] | str) -> tuple[float, ...]:
    """(num_classes,) what `class_weights` means for these training images; a class without images has the weight 0.

    auto: n / (num_classes * n_c) for a class with n_c of the n images, where num_classes counts the classes that have
    images. That is "balanced" of scikit-learn; the mean over the images is 1.

    Raises:
        UsageError: the list has another length; or a weight of 0 for a class that has images.
    """
    counts = source.class_counts()
    if isinstance(given, str):
        num_present = sum(count > 0 for count in counts.values())
        return tuple(len(source) / (num_present * count) if count else 0.0 for count in counts.values())
    if len(given) != len(counts):
        message = f"class_weights is a list of {len(given)}, but the data has {len(counts)} classes: {_some(counts)}"
        raise UsageError(message, help="give one number for each class, in this order")
    if ignored := [name for name, weight in zip(counts, given, strict=True) if counts[name] and not weight]:
        message = f"class_weights is 0 for classes that have training images: {_some(ignored)}"
        raise UsageError(message, help="give a small number, or remove the images of these classes")
    return given


def weight_rows(source: Source, weights: tuple[float, ...]) -> list[tuple[str, str]]:
    """A table of the classes with the largest and the smallest weights: name, weight and number of images."""
    counts = source.class_counts()
    order = np.argsort(-np.array(weights), kind="stable").tolist()
    names = list(counts)
    rows = [(names[index], f"{weights[index]:.4g}  ({_counted(counts[names[index]])})") for index in order]
    hidden = len(rows) - 2 * NUM_SHOWN
    if hidden < 2:
        return rows
    return [*rows[:NUM_SHOWN], ("…", f"{hidden:,} classes between these"), *rows[-NUM_SHOWN:]]


def _counted(num_images: int) -> str:
    return f"{num_images:,} image{'s' * (num_images != 1)}"


def _some(names: dict[str, int] | list[str], most: int = 10) -> str:
    """The first names, and a sign that there are more."""
    return ", ".join([*map(repr, list(names)[:most])] + ["…"] * (len(names) > most))
