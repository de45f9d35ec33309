"""The parts of a report about classes: how well each is found, and what it is taken for."""

from collections.abc import Sequence

import numpy as np

from vitcli.evaluators.answers import ClassResult, ImageAnswers
from vitcli.report.markup import Html, many, tag
from vitcli.report.page import Column, Section, grid, numbers, scrolling, table
from vitcli.report.svg import bar, interval

#: classes that are shown one by one, and in a matrix; of more, this many of each end, and this many confusions
MOST_CLASSES, NUM_ENDS, NUM_CONFUSIONS = 50, 25, 30
#: classes up to which a matrix has room for numbers
_MOST_NUMBERED = 20


def classes_section(results: Sequence[ClassResult]) -> Section:
    """Recall and precision of each class with intervals; of many classes those that are found least and most often."""
    lead = (
        "Recall is the share of the images of a class that are found; precision is the share of the answers with this "
        "class that are right. The line is Wilson's 95 % interval: with few images it is long, and a difference "
        "between two classes whose lines overlap widely may be chance."
    )
    section = Section("Classes", lead=lead)
    seen = [one for one in results if one.num_images]
    missing = len(results) - len(seen)
    if missing:
        section.parts.append(tag("p", f"{missing:,} of {len(results):,} classes have no images here.", class_="note"))
    ordered = sorted(seen, key=lambda one: (one.recall or 0.0, -one.num_images))
    if len(seen) <= MOST_CLASSES:
        section.parts.append(_class_table(ordered, "Recall and precision of each class, lowest recall first"))
        return section
    ends = {
        f"The {NUM_ENDS} classes with the lowest recall": ordered[:NUM_ENDS],
        f"The {NUM_ENDS} classes with the highest recall": ordered[: -NUM_ENDS - 1 : -1],
    }
    for title, some in ends.items():
        section.parts += [tag("h3", title), _class_table(some, title)]
    return section


def _class_table(results: Sequence[ClassResult], caption: str) -> Html:
    columns = [
        Column("class"), Column("images", "number"), Column("recall", "strip"), Column("%, interval", "number"),
        Column("precision", "strip"), Column("%, interval", "number"),
    ]  # fmt: skip
    return table(columns, [_class_row(one) for one in results], caption=caption)


def _class_row(one: ClassResult) -> list[str | Html]:
    recall, precision = one.recall or 0.0, one.precision
    cells: list[str | Html] = [
        one.name,
        f"{one.num_images:,}",
        _strip(one.recall95, recall, 0),
        _with_interval(recall, one.recall95),
    ]
    if precision is None:
        return [*cells, "", tag("span", "never predicted", class_="quiet")]
    return [*cells, _strip(one.precision95, precision, 2), _with_interval(precision, one.precision95)]


def _strip(limits: tuple[float, float], value: float, color: int) -> Html:
    return interval(limits[0], value, limits[1], color)


def _with_interval(value: float, limits: tuple[float, float]) -> Html:
    said = f" {100 * limits[0]:.0f}–{100 * limits[1]:.0f}"
    return many([f"{100 * value:.1f}", tag("span", said, class_="quiet")])


def confusion_section(answers: ImageAnswers) -> Section:
    """A matrix of true and predicted classes; of many classes the most frequent confusions."""
    section = Section("Confusions")
    matrix = answers.confusion()
    wrong = matrix - np.diag(np.diag(matrix))
    if not wrong.any():
        section.lead = "No image is taken for another class."
        return section
    if len(matrix) <= MOST_CLASSES:
        where = "numbers are images" if len(matrix) <= _MOST_NUMBERED else "point at a cell for its number of images"
        section.lead = (
            f"Rows are true classes, columns are predicted ones; {where}. The shade is the share of the row: "
            "blue where the answer is right, orange where it is wrong, each from nothing to its largest share."
        )
    most = NUM_CONFUSIONS if len(matrix) > MOST_CLASSES else 10
    pairs = frequent_confusions(matrix, most)
    title = f"The {len(pairs)} most frequent confusions"
    pair_table = tag("div", tag("h3", title), _pair_table(pairs, matrix, answers.class_names, title))
    shown = [_matrix_table(matrix, answers.class_names)] if len(matrix) <= MOST_CLASSES else []
    section.parts.append(grid([*shown, pair_table], "columns"))
    return section


def frequent_confusions(matrix: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """(true, predicted, images) of the pairs of different classes with the most images; equal ones in class order.

    matrix: (C, C) int64 [true, predicted].
    """
    wrong = matrix - np.diag(np.diag(matrix))
    flat = wrong.ravel()
    order = np.argsort(-flat, kind="stable")[:most]
    return [(*divmod(int(place), len(matrix)), int(flat[place])) for place in order if flat[place]]


def _pair_table(pairs: Sequence[tuple[int, int, int]], matrix: np.ndarray, names: Sequence[str], title: str) -> Html:
    totals = matrix.sum(1)
    largest = max(count / totals[true] for true, _, count in pairs)
    columns = [
        Column("true class"), Column("predicted", "name"), *numbers("images"), Column("share of the class", "strip"),
        *numbers("%"),
    ]  # fmt: skip
    rows = [
        (names[true], names[predicted], f"{count:,} of {totals[true]:,}", bar(count / totals[true] / largest, 1),
         f"{100 * count / totals[true]:.1f}")
        for true, predicted, count in pairs
    ]  # fmt: skip
    return table(columns, rows, caption=title)


def _matrix_table(matrix: np.ndarray, names: Sequence[str]) -> Html:
    """A table whose cells are shaded; in a dense one the numbers are there for a pointer and a screen reader."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    off = shares - np.diag(np.diag(shares))
    scale = np.full(shares.shape, max(off.max(), 1e-9))
    np.fill_diagonal(scale, max(np.diag(shares).max(), 1e-9))
    shades = shares / scale
    corner = tag("th", tag("span", "true class ↓", class_="quiet"), scope="col")
    head = tag("tr", corner, *(tag("th", tag("span", name), scope="col") for name in names))
    rows = [
        tag("tr", tag("th", name, scope="row", title=name),
            *(_matrix_cell(row, column, int(matrix[row, column]), float(shades[row, column]), names)
              for column in range(len(names))))
        for row, name in enumerate(names)
    ]  # fmt: skip
    kind = "confusion" if len(names) <= _MOST_NUMBERED else "confusion dense"
    caption = "Images of each true class (rows) by predicted class (columns)"
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *rows), class_=kind)
    return scrolling(whole, caption)


def _matrix_cell(row: int, column: int, count: int, shade: float, names: Sequence[str]) -> Html:
    if not count:
        return tag("td", "0", class_="none")
    kind = "right" if row == column else "wrong"
    said = f"{names[row]} → {names[column]}: {count:,}"
    return tag("td", f"{count}", class_=kind, style=f"--share:{shade:.2f}", title=said)
