"""Opens the data set that a recipe names: two splits, and one numbering of the classes for both."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vitcli import catalog
from vitcli.data.class_names import in_natural_order, read_class_names
from vitcli.data.file_kinds import kind_of_file
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


def build_splits(
    section: Dataset,
    needs_labels: bool = True,
    *,
    needs_val: bool = True,
    multi_label: bool | None = False,
    seed: int = 0,
) -> Splits:
    """Both splits. The file `class_names` defines the classes, else the training split, in the order `class_order`.

    Args:
        needs_labels: False: images without labels are accepted, and the validation split may be missing.
        needs_val: False: the validation split may be missing.
        multi_label: see `build_split`.
        seed: chooses the images of `num_samples_per_class` and `num_samples_ratio`.

    Raises:
        DataError: the data is missing, empty, not laid out as expected, or `val` has a class that `train` lacks. A
            class without validation images is allowed and noted.
        UsageError: a key that this data set needs is not given, or one that it cannot use.
    """
    train = build_split(section, "train", needs_labels, multi_label=multi_label)
    if section.class_names and train.class_names is not None:
        train = named_in_file(train, section.class_names)
    if needs_labels and needs_val:
        val = build_split(section, "val", multi_label=multi_label)
    else:
        val = _val_if_any(section, train, multi_label)
    if val is not None and train.class_names is not None:
        val = _renumber(val, train.class_names, train.class_counts())
    if needs_labels and [*train.class_counts().values()] == [len(train)]:
        train.notes.append(f"there is only one class, {next(iter(train.class_counts()))!r}: there is nothing to learn")
    return Splits(limited(train, section, seed), val)


def build_split(
    section: Dataset, split: Literal["train", "val"], needs_labels: bool = True, *, multi_label: bool | None = False
) -> Source:
    """One split alone, numbered by its own classes in the order `class_order`.

    multi_label: whether the result is to have any number of classes for each image, or exactly one; None: as the data
        has it. Where one is wanted and the data has several, labels that are not needed are left out.
    """
    if section.held_out is None:
        source = _open(section, split, needs_labels)
    else:
        source = part_of(_open(section, "train", needs_labels), section, split)
    if section.class_order == "natural" and source.class_names is not None:
        source = source.relabel(in_natural_order(source.class_names))
    if needs_labels and source.targets is None:
        raise DataError(f"the images of the data set {section.dataset!r} have no labels", help="choose another task")
    return (
        source if multi_label is None or source.targets is None else _suited(source, split, needs_labels, multi_label)
    )


def _suited(source: Source, split: str, needs_labels: bool, multi_label: bool) -> Source:
    """Labeled images as a task takes them; see `build_split`."""
    if multi_label:
        found, source = source, source if source.multi_label else source.with_one_label_each()
        assert source.targets is not None
        counts = source.targets.sum(1)
        statistics = f"{counts.mean():.2f} labels on average, {int((counts == 0).sum()):,} have none"
        said = statistics if found.multi_label else "exactly one label each"
        source.notes.append(f"{len(source):,} {split} images: {said}")
        return source
    if not source.multi_label:
        return source
    if needs_labels:
        raise _not_one_label(source)
    source = source.without_labels()
    source.notes.append(f"the labels of the {split} images are not used: an image has several or none")
    return source


def build_pool(section: Dataset, needs_labels: bool = True) -> Source:
    """What `val_ratio` and `val_fold` split: the training split, or class folders that are in no split."""
    if section.held_out is None:
        section = section.model_copy(update={"val_ratio": 0.5})  # that it is to be split counts, not into what
    return _open(section, "train", needs_labels)


def build_parts(section: Dataset, seed: int = 0) -> dict[str, Source]:
    """What there is, with labels or without: "train" and "val"; without a validation split all images, as "train".

    Raises DataError and UsageError as `build_splits` does.
    """
    try:
        build_split(section, "val", needs_labels=False, multi_label=None)
    except MissingSplit:
        return {"train": build_pool(section, needs_labels=False)}
    splits = build_splits(section, needs_labels=False, multi_label=None, seed=seed)
    return {"train": splits.train} | ({"val": splits.val} if splits.val is not None else {})


def _open(section: Dataset, split: str, needs_labels: bool) -> Source:
    """The split as its source gives it. A file that is data_dir is read as what its name says."""
    kind = kind_of_file(section.data_dir) if section.dataset == "imagefolder" and section.data_dir else None
    if kind:
        section = section.model_copy(update={"dataset": kind})
    open_source: Callable[..., Source] = catalog.load("sources", section.dataset)
    source = open_source(section, split, needs_labels)
    if kind and split == "train":
        source.notes.append(f"{section.data_dir} is read with --dataset {kind}")
    return source


def _not_one_label(source: Source) -> DataError:
    """What to raise where each image must have one class, and `source` is multi-label data."""
    assert source.targets is not None
    wrong = np.flatnonzero(source.targets.sum(1) != 1)
    if not len(wrong):
        return DataError("the images may have several classes each", help=_MULTI_LABEL)
    index = int(wrong[0])
    labels = source.labels(index)
    said = f"has {len(labels)} labels: {', '.join(map(repr, labels[:5]))}" if labels else "has no label"
    where = f"{source.label_place(index)}: the image {source.name(index)!r} {said}"
    more = f" ({len(wrong):,} images have several labels or none)" if len(wrong) > 1 else ""
    return DataError(where + more, help=_MULTI_LABEL)


_MULTI_LABEL = "give each image one label, or learn any number of labels per image: --task multilabel"


def build_named(
    section: Dataset, split: Literal["train", "val"], class_names: list[str], *, multi_label: bool = False
) -> Source:
    """One split alone, numbered by `class_names` (those of a checkpoint, for example).

    Raises:
        DataError: it has a class that is not among them.
    """
    source = build_split(section, split, multi_label=multi_label)
    return _renumber(source, class_names, dict.fromkeys(class_names))


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


def _val_if_any(section: Dataset, train: Source, multi_label: bool | None) -> Source | None:
    """The validation split if it has labels or none as `train` has; notes of `train` say why there is none."""
    try:
        val = build_split(section, "val", needs_labels=False, multi_label=multi_label)
    except MissingSplit as error:
        if train.targets is not None:
            train.notes.append(f"{error.message}: there is nothing to evaluate on")
        return None
    if (val.targets is None) != (train.targets is None):
        train.notes += [*val.notes, "the validation split is not used: only one of the two splits has labels"]
        return None
    if train.multi_label and val.targets is not None and not val.multi_label:
        return val.with_one_label_each()
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
        return stratified(source, _parts(source.strata()), lambda count: max(1, round(ratio * count)), seed)
    if wanted is None:
        return source
    if source.targets is None:
        raise UsageError(
            "num_samples_per_class is given, but the images have no labels",
            help="give num_samples or num_samples_ratio instead",
        )
    chosen = stratified(source, _of_each_class(source), lambda count: min(wanted, count), seed)
    counts = chosen.class_counts().values()
    if more := sum(count > wanted for count in counts):
        chosen.notes.append(f"{more} classes have more than {wanted} images, which were chosen for other classes too")
    if small := sum(count < wanted for count in counts):
        chosen.notes.append(f"{small} of {len(counts)} classes have fewer than {wanted} images; all of these are used")
    return chosen


def stratified(source: Source, groups: Iterable[np.ndarray], quota: Callable[[int], int], seed: int) -> Source:
    """`quota(n)` of the n images of each group, in their order; an image may be in several groups.

    The images of a group are put in an order that is a function of the seed and their names, and the first ones are
    chosen. So a smaller quota chooses a part of what a larger one chooses, and no image depends on the others.

    groups: (n,) int64, images of `source`; each of them has at least one.
    """
    keys = np.array([stream_seed(f"subset {source.name(index)}", seed) for index in range(len(source))])
    chosen = [group[np.argsort(keys[group], kind="stable")][: quota(len(group))] for group in groups]
    return source.select(np.unique(np.concatenate(chosen)))


def _parts(strata: np.ndarray) -> list[np.ndarray]:
    """The images of each part of `Source.strata`."""
    return [np.flatnonzero(strata == part) for part in np.unique(strata)]


def _of_each_class(source: Source) -> list[np.ndarray]:
    """The images of each class, and those that have none."""
    assert source.targets is not None
    if not source.multi_label:
        return _parts(source.targets)
    classes = [*source.targets.T, ~source.targets.any(1)]
    return [np.flatnonzero(members) for members in classes if members.any()]
