"""Which class is which output of a network: names decide wherever both the weights and the data have them."""

from typing import Literal

from vitcli.data.class_names import in_natural_order
from vitcli.data.datasets import build_named, build_split
from vitcli.data.imagenet import as_spelled_by
from vitcli.data.source import Source
from vitcli.errors import DataError, WeightsError
from vitcli.recipe.load import Recipe
from vitcli.recipe.schema import Dataset

#: whether the outputs have names, or only numbers because the weights do not name their classes
NamedBy = Literal["name", "number"]


def numbered(
    section: Dataset,
    class_names: list[str],
    named_by: NamedBy,
    split: Literal["train", "val"] = "val",
    *,
    multi_label: bool = False,
) -> Source:
    """A split with the class indices of a network's outputs; multi_label: see `build_split`.

    Classes are matched by name; an equal count proves nothing. ImageNet's folders (n01440764) are found under their
    names in words (tench, Tinca tinca) too. Only if the outputs have numbers for names, the classes of the data are
    assumed to be in the order of the outputs, and a note says so. A split that lacks classes is numbered by the
    training split next to it.

    Raises:
        DataError: the data has a class that the network does not know, or cannot be read.
        WeightsError: the outputs have no names, and the data has another number of classes.
    """
    if named_by == "number":
        images = _in_order(section, class_names, split, multi_label)
        if images is None:
            num_found = len(build_split(section, split, multi_label=multi_label).class_names or ())
            raise WeightsError(
                f"the network has {len(class_names)} classes, the data has {num_found} classes",
                help="use the data that it was trained for, name its classes with --class_names FILE, or fine-tune it: "
                "`vitcli train … --ckpt_path FILE`",
            )
        return images
    found = build_split(section, split, multi_label=multi_label).class_names or ()
    names = as_spelled_by(found, class_names)
    if not {*found} & {*names}:
        shown, known = (", ".join(map(repr, some[:3])) + ", …" * (len(some) > 3) for some in (list(found), class_names))
        raise DataError(
            f"no class of the data ({shown}) is a class of the network ({known})",
            help="name the outputs as the class folders are named, one per line: --class_names FILE",
        )
    images = build_named(section, split, names, multi_label=multi_label)
    images.class_names = list(class_names)
    return images


def _in_order(
    section: Dataset, class_names: list[str], split: Literal["train", "val"], multi_label: bool
) -> Source | None:
    """The split, whose classes, or those of the training split, are taken to be `class_names` in their order.

    None: neither has this number of classes.
    """
    images = build_split(section, split, multi_label=multi_label)
    names = images.class_names or []
    if len(names) != len(class_names):
        names = _names_in_training(section, multi_label)
        if len(names) != len(class_names):
            return None
        images = build_named(section, split, names, multi_label=multi_label)
    note = f"the classes of the weights have no names: those of the data are taken in {section.class_order} order"
    natural = in_natural_order(names)
    if section.class_order == "sorted" and natural != names:
        first, second = next(pair for pair in zip(names, natural, strict=True) if pair[0] != pair[1])
        note += f", {first!r} before {second!r}; --class_order natural sorts numbers by value"
    images.notes = [*images.notes, note]
    images.class_names = list(class_names)
    return images


def _names_in_training(section: Dataset, multi_label: bool) -> list[str]:
    try:
        return build_split(section, "train", multi_label=multi_label).class_names or []
    except DataError:
        return []


def check_num_classes(recipe: Recipe, class_names: list[str]) -> None:
    """DataError if the recipe gives another number of classes than the data."""
    given, found = recipe.model.num_classes, len(class_names)
    if given is not None and given != found:
        shown = ", ".join(class_names[:6]) + (", …" if found > 6 else "")
        table = f"  recipe  {given:>6} classes (num_classes)\n  data    {found:>6} classes ({shown})"
        help = "remove num_classes: it follows from the data"
        raise DataError(f"recipe and data disagree on the number of classes:\n{table}", help=help)
