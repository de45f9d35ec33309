"""Opens the data set that a recipe names: two splits, and one numbering of the classes for both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vitcli import catalog
from vitcli.data.class_names import in_natural_order, read_class_names
from vitcli.data.holdout import part_of
from vitcli.data.source import MissingSplit, Source
from vitcli.data.streams import stream_seed
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset


@dataclass(frozen=True)
class Splits:
    """Two splits whose targets are indices into the same `class_names`.

    Without labels, `class_names` is None and so is `val`.
    """

    train: Source
    val: Source | None

    @property
    def class_names(self) -> list[str] | None:
        return self.train.class_names


def build_splits(section: Dataset, needs_labels: bool = True, *, needs_val: bool = True, seed: int = 0) -> Splits:
    """Both splits. The file `class_names` defines the classes, else the training split, in the order `class_order`.

    Args:
        needs_labels: False: images without labels are accepted, and the validation split may be missing.
        needs_val: False: the validation split may be missing.
        seed: chooses the images of `num_samples_per_class` and `num_samples_ratio`.

    Raises:
        DataError: the data is missing, empty, not laid out as expected, or `val` has a class that `train` lacks. A
            class without validation images is allowed and noted.
        UsageError: a key that this data set needs is not given, or one that it cannot use.
    """
    train = build_split(section, "train", needs_labels)
    if section.class_names and train.class_names is not None:
        train = named_in_file(train, section.class_names)
    val = build_split(section, "val") if needs_labels and needs_val else _val_if_any(section, train)
    if val is not None and train.class_names is not None:
        val = _renumber(val, train.class_names, train.class_counts())
    if needs_labels and len(train.class_counts()) == 1:
        train.notes.append(f"there is only one class, {next(iter(train.class_counts()))!r}: there is nothing to learn")
    return Splits(limited(train, section, seed), val)


def build_split(section: Dataset, split: Literal["train", "val"], needs_labels: bool = True) -> Source:
    """One split alone, numbered by its own classes in the order `class_order`."""
    open_source: Callable[..., Source] = catalog.load("sources", section.dataset)
    if section.held_out is None:
        source = open_source(section, split, needs_labels)
    else:
        source = part_of(open_source(section, "train", needs_labels), section, split)
    if section.class_order == "natural" and source.class_names is not None:
        source = source.relabel(in_natural_order(source.class_names))
    if needs_labels and source.targets is None:
        raise DataError(f"the images of the data set {section.dataset!r} have no labels", help="choose another task")
    return source


def build_named(section: Dataset, split: Literal["train", "val"], class_names: list[str]) -> Source:
    """One split alone, numbered by `class_names` (those of a checkpoint, for example).

    Raises:
        DataError: it has a class that is not among them.
    """
    return _renumber(build_split(section, split), class_names, dict.fromkeys(class_names))


def named_in_file(source: Source, file: Path) -> Source:
    """`source`, numbered by the classes in `file`; DataError if it has a class that the file does not name."""
    names = read_class_names(file)
    if unknown := [name for name in source.class_counts() if name not in names]:
        shown = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        message = f"{len(unknown)} of {len(source.class_counts())} classes of the data are not in {file}: {shown}"
        raise DataError(message, help="write the name of each class folder on a line of its own")
    source = source.relabel(names)
    if num_absent := sum(count == 0 for count in source.class_counts().values()):
        source.notes.append(f"{num_absent} of {len(names)} classes in {file} have no images here")
    return source


def _val_if_any(section: Dataset, train: Source) -> Source | None:
    """The validation split if it has labels or none as `train` has; notes of `train` say why there is none."""
    try:
        val = build_split(section, "val", needs_labels=False)
    except MissingSplit as error:
        if train.targets is not None:
            train.notes.append(f"{error.message}: there is nothing to evaluate on")
        return None
    if (val.targets is None) != (train.targets is None):
        train.notes += [*val.notes, "the validation split is not used: only one of the two splits has labels"]
        return None
    return val


def _renumber(val: Source, class_names: list[str], train_counts: Mapping[str, int | None]) -> Source:
    """`val` with indices into `class_names`; raises DataError, with a table, for a class that is not among them."""
    val_counts = val.class_counts()
    unknown = [name for name in val_counts if name not in train_counts]
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(val_counts)} validation classes are not among the "
            f"{len(class_names)} training classes\n" + _table(class_names, train_counts, val_counts, unknown),
            help="give both splits the same class folders, or remove these folders from the validation split",
        )
    absent = [name for name in class_names if name not in val_counts]
    val = val.relabel(class_names)
    if absent:
        shown = ", ".join(map(repr, absent[:5])) + (", …" if len(absent) > 5 else "")
        val.notes.append(f"{len(absent)} of {len(class_names)} classes have no validation images: {shown}")
    return val


def _table(
    class_names: list[str], train: Mapping[str, int | None], val: dict[str, int], unknown: list[str], most: int = 10
) -> str:
    """The classes that differ between the splits, with the number of images in each."""
    missing = [name for name in class_names if name not in val]
    rows = [(repr(name), str(train.get(name, 0) or "-"), str(val.get(name, 0))) for name in (unknown + missing)[:most]]
    width = max(len("class"), *(len(name) for name, _, _ in rows))
    lines = [
        f"  {name:<{width}}  {train_count:>7}  {val_count:>7}"
        for name, train_count, val_count in [("class", "train", "val"), *rows]
    ]
    hidden = len(unknown) + len(missing) - len(rows)
    return "\n".join(lines + ([f"  … and {hidden} more"] if hidden > 0 else []))


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
