"""The part of a comparison that says whether a difference is more than chance."""

from collections.abc import Sequence
from itertools import combinations

from vitcli.report.compared_run import ComparedRun, best_of
from vitcli.report.comparison import SIGNIFICANT, Comparison, compared
from vitcli.report.markup import Content, many, tag
from vitcli.report.page import Column, Section, table

#: runs of which every pair is tested; of more, each is tested against the best
MOST_PAIRWISE = 6


def chance_section(runs: Sequence[ComparedRun]) -> Section:
    """McNemar's test for pairs of runs that answered the same images."""
    section = Section("Chance")
    pairs = [(first, second, _compared(first, second)) for first, second in _pairs(runs)]
    comparable = [(first, second, found) for first, second, found in pairs if found]
    if not comparable:
        section.lead = "The runs cannot be tested against each other: they did not answer the same images and classes."
        return section
    section.lead = (
        "McNemar's exact test on the images that only one run of a pair gets right. p is the probability of a "
        f"difference at least this large if both were equally good; below {SIGNIFICANT} it is called a difference. It "
        "speaks of these two networks, not of their recipes: another seed may turn it around."
    )
    if len(comparable) > 1:
        section.lead += f" With {len(comparable)} tests, about one in 20 falls below {SIGNIFICANT} by chance alone."
    columns = [Column("pair"), Column("both right", "number"), Column("only the first", "number"),
               Column("only the second", "number"), Column("both wrong", "number"), Column("p", "number"),
               Column("", "name")]  # fmt: skip
    section.parts.append(table(columns, [_pair_row(*pair) for pair in comparable], caption="McNemar's test"))
    if left := len(pairs) - len(comparable):
        section.parts.append(tag("p", f"{left} pairs did not answer the same images and classes.", class_="note"))
    return section


def _pairs(runs: Sequence[ComparedRun]) -> list[tuple[ComparedRun, ComparedRun]]:
    measured = [run for run in runs if run.answers]
    if len(measured) <= MOST_PAIRWISE:
        return list(combinations(measured, 2))
    best = best_of(measured) or measured[0]
    return [(best, run) for run in measured if run is not best]


def _compared(first: ComparedRun, second: ComparedRun) -> Comparison | None:
    assert first.answers is not None
    assert second.answers is not None
    return compared(first.answers, second.answers)


def _pair_row(first: ComparedRun, second: ComparedRun, found: Comparison) -> list[Content]:
    only_first, only_second = len(found.only_first), len(found.only_second)
    better = first if only_first > only_second else second
    is_shown = found.p < SIGNIFICANT
    verdict = many([better.mark, " is better"]) if is_shown else tag("span", "may be chance", class_="quiet")
    counts = [f"{count:,}" for count in (found.both_correct, only_first, only_second, found.both_wrong)]
    return [many([first.mark, " and ", second.mark]), *counts, shown_p(found.p), verdict]


def shown_p(p: float) -> str:
    """0.031, or 2.4e-08 where that is clearer."""
    if p >= 0.001:
        return f"{p:.3f}"
    return f"{p:.1e}" if p > 1e-300 else "below 1e-300"
