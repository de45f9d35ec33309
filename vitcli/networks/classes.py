"""Which class is which output of a network: names decide wherever both the weights and the data have them."""

from typing import Literal

from vitcli.data.class_names import in_natural_order
from vitcli.data.datasets import build_named, build_split
from vitcli.data.source import Source
from vitcli.errors import DataError, WeightsError
from vitcli.recipe.load import Recipe
from vitcli.recipe.schema import Dataset

#: what the names of the outputs are: the classes of the training data; descriptions, such as the hub's
#: "tench, Tinca tinca" for the folder n01440764; or numbers, because the weights do not name their classes
NamedBy = Literal["data", "description", "number"]


def called_by_number(num_classes: int) -> list[str]:
    """What classes without names are called."""
    return [f"class {number}" for number in range(num_classes)]


def numbered(
    section: Dataset, class_names: list[str], named_by: NamedBy, split: Literal["train", "val"] = "val"
) -> Source:
    """A split with the class indices of a network's outputs.

    Classes are matched by name; an equal count proves nothing. Only if the outputs have numbers for names, or
    descriptions none of which is a class of the data, the classes of the data are assumed to be in the order of the
    outputs, and a note says so. A split that lacks classes is numbered by the training split next to it.

    Raises:
        DataError: the data has a class that the network does not know, or cannot be read.
        WeightsError: the outputs have no names, and the data has another number of classes.
    """
    if named_by == "number":
        return _by_number(section, class_names, split)
    try:
        return build_named(section, split, class_names)
    except DataError:
        if named_by != "description":
            raise
        images = build_split(section, split)
        found = images.class_names or []
        if len(found) != len(class_names) or {*found} & {*class_names}:
            raise
        reason = "the folders are not named as the classes of the weights"
        return _in_order(images, class_names, reason, section.class_order)


def _by_number(section: Dataset, class_names: list[str], split: Literal["train", "val"]) -> Source:
    """The split with the indices that its classes have in the training split, if need be."""
    images = build_split(section, split)
    num_found = len(images.class_names or ())
    if num_found != len(class_names):
        of_train = _names_in_training(section)
        if len(of_train) != len(class_names):
            raise WeightsError(
                f"the network has {len(class_names)} classes, the data has {num_found} classes",
                help="use the data that it was trained for, name its classes with --class_names FILE, or fine-tune it: "
                "`vitcli train … --ckpt_path FILE`",
            )
        images = build_named(section, split, of_train)
    return _in_order(images, class_names, "the classes of the weights have no names", section.class_order)


def _names_in_training(section: Dataset) -> list[str]:
    try:
        return build_split(section, "train").class_names or []
    except DataError:
        return []


def _in_order(images: Source, class_names: list[str], reason: str, order: str) -> Source:
    names = images.class_names or []
    note = f"{reason}: those of the data are taken in {order} order"
    if order == "sorted" and in_natural_order(names) != names:
        pairs = zip(names, in_natural_order(names), strict=True)
        first, second = next(pair for pair in pairs if pair[0] != pair[1])
        note += f", {first!r} before {second!r}; --class_order natural sorts numbers by value"
    images.notes = [*images.notes, note]
    images.class_names = list(class_names)
    return images


def check_num_classes(recipe: Recipe, class_names: list[str]) -> None:
    """DataError if the recipe gives another number of classes than the data."""
    given, found = recipe.model.num_classes, len(class_names)
    if given is not None and given != found:
        shown = ", ".join(class_names[:6]) + (", …" if found > 6 else "")
        table = f"  recipe  {given:>6} classes (num_classes)\n  data    {found:>6} classes ({shown})"
        help = "remove num_classes: it follows from the data"
        raise DataError(f"recipe and data disagree on the number of classes:\n{table}", help=help)
