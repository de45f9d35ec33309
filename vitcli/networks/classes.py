"""Which class is which output of a network."""

from vitcli.errors import DataError
from vitcli.recipe.load import Recipe


def check_num_classes(recipe: Recipe, class_names: list[str]) -> int:
    """The number of classes, which the data defines.

    Raises:
        DataError: the recipe gives another number.
    """
    given, found = recipe.model.num_classes, len(class_names)
    if given is not None and given != found:
        shown = ", ".join(class_names[:6]) + (", …" if found > 6 else "")
        table = f"  recipe  {given:>6} classes (num_classes)\n  data    {found:>6} classes ({shown})"
        raise DataError(
            f"recipe and data disagree on the number of classes:\n{table}",
            help="leave num_classes out: it follows from the data",
        )
    return found
