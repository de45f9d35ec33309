"""The report of several runs: what differs between them, what it is worth, and whether the difference is chance."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from vitcli.evaluators.answers import ImageAnswers
from vitcli.evaluators.statistics import mcnemar, wilson
from vitcli.report.curves import training_section
from vitcli.report.evaluation import Evaluation
from vitcli.report.headline import METRIC_NAMES, headline_of
from vitcli.report.in_words import duration
from vitcli.report.markup import Content, Html, many, tag, unbroken
from vitcli.report.one_run import foot
from vitcli.report.origin import shown_value
from vitcli.report.page import Column, Section, commands, page, table
from vitcli.report.run_record import PLACES, RunRecord
from vitcli.report.svg import NUM_COLORS, interval

#: runs of which every pair is tested; of more, each is tested against the best
MOST_PAIRWISE = 6
#: a p-value below this is called a difference
_SIGNIFICANT = 0.05
#: keys that say where and how fast, not what; two runs that differ in them and the seed are repetitions
_NOT_THE_RESULT = (*PLACES, "data_dir", "device", "num_parallel_workers", "log_interval", "report")


@dataclass(frozen=True)
class Run:
    """One of the runs that are compared."""

    letter: str  #: A, B, …: its name in tables and charts
    color: int
    record: RunRecord
    evaluation: Evaluation | None

    @property
    def answers(self) -> ImageAnswers | None:
        answers = self.evaluation.answers if self.evaluation else None
        return answers if isinstance(answers, ImageAnswers) else None

    @property
    def metric(self) -> str | None:
        return self.record.metric or ("top1" if self.answers else None)

    @property
    def result(self) -> float | None:
        """Measured now, else as logged; in percent."""
        now = self.evaluation.numbers.get(self.metric or "") if self.evaluation else None
        return self.record.best if now is None else now

    @property
    def mark(self) -> Html:
        return tag("span", self.letter, class_=f"run series-{self.color % NUM_COLORS + 1}")


def report_of_several(records: Sequence[RunRecord], evaluations: Sequence[Evaluation | None]) -> str:
    """The page as text; the runs keep their order."""
    runs = [
        Run(letter_of(number), number, record, evaluation)
        for number, (record, evaluation) in enumerate(zip(records, evaluations, strict=True))
    ]
    sections = [
        _runs_section(runs),
        _differences_section(runs),
        _chance_section(runs),
        _seeds_section(runs),
        training_section(records, [run.letter for run in runs]),
        _commands_section([record.path for record in records]),
    ]
    best = best_of(runs)
    title = f"{len(runs)} runs" + (f" · best {best.result:.2f} %" if best and best.result is not None else "")
    return page(title, _head(runs, best), sections, foot())


def letter_of(number: int) -> str:
    """A … Z, AA, AB, …"""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def best_of(runs: Sequence[Run]) -> Run | None:
    """That with the largest result; of equal ones the first. None: none has a result, or they measure other things."""
    measured = [run for run in runs if run.result is not None]
    if len({run.metric for run in measured}) != 1:
        return None
    return max(measured, key=lambda run: run.result or 0.0)


def _head(runs: Sequence[Run], best: Run | None) -> Html:
    title = f"{len(runs)} runs compared"
    sentence = "Their results are not of the same kind, so none is called the best."
    if best and best.result is not None:
        title = f"{best.result:.2f} % {METRIC_NAMES.get(best.metric or '', best.metric or '')}"
        sentence = f"The best of {len(runs)} runs: {best.letter}, {best.record.name}. "
        sentence += headline_of(best.record, best.evaluation).sentence
    return many([
        tag("p", f"vitcli report · {len(runs)} runs", class_="kicker"),
        tag("h1", title),
        tag("p", unbroken(sentence), class_="subject"),
    ])  # fmt: skip


def _runs_section(runs: Sequence[Run]) -> Section:
    """Each run with its result and interval."""
    shown = [run.answers for run in runs if run.answers]
    section = Section("Runs")
    if shown:
        section.lead = "The line is the 95 % interval of the result, given these images; the best is in bold."
    best = best_of(runs)
    limits = [wilson(int(answers.correct.sum()), len(answers)) for answers in shown]
    low, high = min((one[0] for one in limits), default=0.0), max((one[1] for one in limits), default=1.0)
    margin = 0.08 * (high - low)
    scale = low - margin, high + margin
    columns = [Column("run"), Column("folder", "name"), Column("result", "number"), Column("95 % interval", "strip"),
               Column("from – to", "number"), Column("best epoch", "number"), Column("time", "number")]  # fmt: skip
    rows = [_run_row(run, run is best, scale) for run in runs]
    section.parts.append(table(columns, rows, caption="Runs and their results"))
    notes = dict.fromkeys(note for run in runs if run.evaluation for note in run.evaluation.notes)
    section.parts += [tag("p", note, class_="note") for note in notes]
    return section


def _run_row(run: Run, is_best: bool, scale: tuple[float, float]) -> list[Content]:
    name = METRIC_NAMES.get(run.metric or "", run.metric or "")
    result: Content = "none" if run.result is None else f"{run.result:.2f} % {name}"
    strip: Content = tag("span", "as logged", class_="quiet") if run.result is not None else ""
    said = ""
    if answers := run.answers:
        low, high = wilson(int(answers.correct.sum()), len(answers))
        places = [(value - scale[0]) / (scale[1] - scale[0]) for value in (low, float(answers.correct.mean()), high)]
        strip, said = interval(*places, color=run.color), f"{100 * low:.2f} – {100 * high:.2f}"
    epoch = "" if run.record.best_epoch is None else f"{run.record.best_epoch} of {run.record.num_epochs or '?'}"
    status = "" if run.record.status == "done" else f" ({run.record.status})"
    cells = [run.mark, f"{run.record.name}{status}", tag("span", result, class_="best") if is_best else result]
    return [*cells, strip, said, epoch, duration(run.record.seconds)]


def _differences_section(runs: Sequence[Run]) -> Section:
    """The keys whose values differ, one row each, with the results above them."""
    names = differing_keys([run.record.recipe for run in runs])
    section = Section("Differences")
    section.lead = (
        f"{len(names)} keys of the recipes differ; all others are equal."
        if names
        else "The recipes are equal in every key."
    )
    columns = [Column("key"), *(Column(run.mark) for run in runs)]
    results = ["result, %", *("" if run.result is None else f"{run.result:.2f}" for run in runs)]
    rows: list[Sequence[Content]] = [results]
    rows += [[tag("code", name), *(_value(run.record.recipe, name) for run in runs)] for name in names]
    versions = [str(run.record.env.get("torch", "")) for run in runs]
    if len(set(versions)) > 1:
        rows.append(["torch", *versions])
    section.parts.append(table(columns, rows, caption="Keys that differ between the runs"))
    return section


def differing_keys(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """In the order of the recipes; a key that one of them lacks differs."""
    names = dict.fromkeys(name for recipe in recipes for name in recipe if name not in PLACES)
    first = recipes[0]
    return [
        name
        for name in names
        if any(name not in recipe or recipe[name] != first.get(name) for recipe in recipes)
    ]  # fmt: skip


def _value(recipe: Mapping[str, Any], name: str) -> Html:
    return tag("code", shown_value(recipe[name])) if name in recipe else tag("span", "not set", class_="quiet")


def _chance_section(runs: Sequence[Run]) -> Section:
    """McNemar's test for pairs of runs that answered the same images."""
    section = Section("Chance")
    pairs = _pairs(runs)
    comparable = [(first, second) for first, second in pairs if _same_images(first, second)]
    if not comparable:
        section.lead = "The runs cannot be tested against each other: they did not answer the same images and classes."
        return section
    section.lead = (
        "McNemar's exact test on the images that only one run of a pair gets right. p is the probability of a "
        f"difference at least this large if both were equally good; below {_SIGNIFICANT} it is called a difference. It "
        "speaks of these two networks, not of their recipes: another seed may turn it around."
    )
    if len(comparable) > 1:
        section.lead += f" With {len(comparable)} tests, about one in 20 falls below {_SIGNIFICANT} by chance alone."
    columns = [Column("pair"), Column("both right", "number"), Column("only the first", "number"),
               Column("only the second", "number"), Column("both wrong", "number"), Column("p", "number"),
               Column("", "name")]  # fmt: skip
    rows = [_pair_row(first, second) for first, second in comparable]
    section.parts.append(table(columns, rows, caption="McNemar's test"))
    if left := len(pairs) - len(comparable):
        section.parts.append(tag("p", f"{left} pairs did not answer the same images and classes.", class_="note"))
    return section


def _pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    measured = [run for run in runs if run.answers]
    if len(measured) <= MOST_PAIRWISE:
        return list(combinations(measured, 2))
    best = best_of(measured) or measured[0]
    return [(best, run) for run in measured if run is not best]


def _same_images(first: Run, second: Run) -> bool:
    one, other = first.answers, second.answers
    assert one is not None
    assert other is not None
    return (
        one.class_names == other.class_names and one.names == other.names and np.array_equal(one.targets, other.targets)
    )


def _pair_row(first: Run, second: Run) -> list[Content]:
    one, other = first.answers, second.answers
    assert one is not None
    assert other is not None
    both, only_first, only_second = (
        int(some.sum())
        for some in (one.correct & other.correct, one.correct & ~other.correct, ~one.correct & other.correct)
    )
    p = mcnemar(only_first, only_second)
    better = first if only_first > only_second else second
    verdict = many([better.mark, " is better"]) if p < _SIGNIFICANT else tag("span", "may be chance", class_="quiet")
    counts = [f"{count:,}" for count in (both, only_first, only_second, len(one) - both - only_first - only_second)]
    return [many([first.mark, " and ", second.mark]), *counts, shown_p(p), verdict]


def shown_p(p: float) -> str:
    """0.031, or 2.4e-08 where that is clearer."""
    if p >= 0.001:
        return f"{p:.3f}"
    return f"{p:.1e}" if p > 1e-300 else "below 1e-300"


def _seeds_section(runs: Sequence[Run]) -> Section:
    """Mean and standard deviation over runs that differ only in their seed."""
    section = Section("Seeds")
    groups = [group for group in _repetitions(runs) if len(group) > 1]
    if not groups:
        return section
    section.lead = (
        "Runs of the same recipe with other seeds: the mean, and the standard deviation of one run. A smaller "
        "difference between two recipes is within what a new seed changes."
    )
    columns = [Column("runs"), Column("number", "number"), Column("mean ± standard deviation", "number"),
               Column("from – to", "number"), Column("seeds", "name")]  # fmt: skip
    section.parts.append(table(columns, [_group_row(group) for group in groups], caption="Repetitions"))
    return section


def _repetitions(runs: Sequence[Run]) -> list[list[Run]]:
    groups: list[list[Run]] = []
    for run in runs:
        if run.result is None:
            continue
        same = next((group for group in groups if _is_repetition(group[0], run)), None)
        if same is None:
            groups.append([run])
        else:
            same.append(run)
    return groups


def _is_repetition(one: Run, other: Run) -> bool:
    if not one.record.recipe or one.metric != other.metric:
        return False
    names = set(differing_keys([one.record.recipe, other.record.recipe])) - {*_NOT_THE_RESULT}
    return names == {"seed"}


def _group_row(group: Sequence[Run]) -> list[Content]:
    values = [run.result for run in group if run.result is not None]
    mean, deviation = mean_and_deviation(values)
    marks = many(many([run.mark, " "]) for run in group)
    seeds = ", ".join(shown_value(run.record.recipe.get("seed")) for run in group)
    return [marks, f"{len(group)}", f"{mean:.2f} ± {deviation:.2f} %", f"{min(values):.2f} – {max(values):.2f}", seeds]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the standard deviation of a sample (n - 1)."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _commands_section(paths: Sequence[Path]) -> Section:
    words = " ".join(shlex.quote(str(path)) for path in paths)
    each = [
        (f"the report of {path.name} alone", f"vitcli report {shlex.quote(str(path))} -o report.html")
        for path in paths[:3]
    ]
    return Section("Commands", [commands([("make this report again", f"vitcli report {words} -o report.html"), *each])])
