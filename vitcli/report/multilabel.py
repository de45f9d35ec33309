"""The part of a report about classes of which an image may have any number."""

from collections.abc import Mapping

from vitcli.evaluators.answers import ClassResult, MultiLabelAnswers
from vitcli.report.classes import MOST_CLASSES, NUM_ENDS
from vitcli.report.markup import Html, many, tag
from vitcli.report.page import Column, Section, numbers, table
from vitcli.report.svg import bar, interval

Row = tuple[ClassResult, float, float]  #: with its average precision in percent and its threshold


def label_section(answers: MultiLabelAnswers, values: Mapping[str, float]) -> Section:
    """Average precision of each class, and F1 with its interval at the threshold of the network, lowest first."""
    exact = 100 * float(answers.correct.mean())
    section = Section("Classes")
    section.lead = (
        "Average precision (AP) needs no threshold; F1 is that of the answers at the threshold of the class, with a "
        f"95 % interval. All classes of an image are right for {exact:.1f} % of the images."
    )
    rows = [
        (one, values[f"ap.{one.name}"], values[f"threshold.{one.name}"])
        for one in answers.per_class()
        if f"ap.{one.name}" in values
    ]
    rows.sort(key=lambda row: row[1])
    if hidden := len(answers.class_names) - len(rows):
        section.parts.append(tag("p", f"{hidden:,} classes have no images here.", class_="note"))
    if len(rows) <= MOST_CLASSES:
        return _with_table(section, rows, "Average precision and F1 of each class, lowest first")
    _with_table(section, rows[:NUM_ENDS], f"The {NUM_ENDS} classes with the lowest average precision")
    return _with_table(
        section, rows[: -NUM_ENDS - 1 : -1], f"The {NUM_ENDS} classes with the highest average precision"
    )


def _with_table(section: Section, rows: list[Row], title: str) -> Section:
    columns = [
        Column("class"), *numbers("images"), Column("AP", "strip"), *numbers("%"), Column("F1", "strip"),
        *numbers("%, interval", "recall, precision %", "threshold"),
    ]  # fmt: skip
    section.parts += [tag("h3", title), table(columns, [_row(*row) for row in rows], caption=title)]
    return section


def _row(one: ClassResult, ap: float, threshold: float) -> list[Html | str]:
    f1, (low, high) = one.f1 or 0.0, one.f1_95
    said = many([f"{100 * f1:.1f}", tag("span", f" {100 * low:.0f}–{100 * high:.0f}", class_="quiet")])
    both = f"{_percent(one.recall)}, {_percent(one.precision)}"
    count = f"{one.num_images:,}"
    return [one.name, count, bar(ap / 100), f"{ap:.1f}", interval(low, f1, high, 2), said, both, f"{threshold:.3f}"]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
