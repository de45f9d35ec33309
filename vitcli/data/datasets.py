"""Opens the data set that a recipe names: two splits, and one numbering of the classes for both."""

from dataclasses import dataclass
from typing import Literal

from vitcli import catalog
from vitcli.data.source import Source
from vitcli.errors import DataError
from vitcli.recipe.schema import Dataset


@dataclass(frozen=True)
class Splits:
    """Two splits whose labels are indices into the same `class_names`."""

    train: Source
    val: Source

    @property
    def class_names(self) -> list[str]:
        return self.train.class_names


def build_splits(section: Dataset) -> Splits:
    """Both splits; the training split defines the classes (folder names in sorted order).

    Raises DataError when the data is missing, empty, not laid out as expected, or when `val` has a class that is not
    trained. A class without validation images is fine and noted.
    """
    train = build_split(section, "train")
    val = _renumber(build_split(section, "val"), train.class_names, train.class_counts())
    if len(train.class_names) == 1:
        train.notes.append(f"there is only one class, {train.class_names[0]!r}: nothing can be learned from it")
    return Splits(train if section.num_samples is None else train.subset(section.num_samples), val)


def build_split(section: Dataset, split: Literal["train", "val"]) -> Source:
    """One split alone, numbered by its own sorted classes."""
    return catalog.load("sources", section.dataset)(section, split)


def build_val(section: Dataset, class_names: list[str] | None = None) -> Source:
    """The validation split alone, numbered by `class_names` (a checkpoint's, say) or by its own sorted classes."""
    val = build_split(section, "val")
    return val if class_names is None else _renumber(val, class_names, dict.fromkeys(class_names))


def _renumber(val: Source, class_names: list[str], train_counts: dict[str, int] | dict[str, None]) -> Source:
    """`val` with indices into `class_names`; raises DataError, with a table, for a class that is not among them."""
    val_counts = val.class_counts()
    unknown = [name for name in val_counts if name not in train_counts]
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(val_counts)} validation classes are not among the "
            f"{len(class_names)} training classes\n" + _table(class_names, train_counts, val_counts, unknown),
            help="give both splits the same class folders, or remove the folders in question from the validation split",
        )
    absent = [name for name in class_names if name not in val_counts]
    val = val.relabel(class_names)
    if absent:
        shown = ", ".join(map(repr, absent[:5])) + (", …" if len(absent) > 5 else "")
        val.notes = [*val.notes, f"{len(absent)} of {len(class_names)} classes have no validation images: {shown}"]
    return val


def _table(class_names: list[str], train: dict, val: dict[str, int], unknown: list[str], most: int = 10) -> str:
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
