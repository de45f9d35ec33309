"""The report of several runs: what differs between them, what it is worth, and whether the difference is chance."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitcli.evaluators.statistics import wilson
from vitcli.report.chance import chance_section
from vitcli.report.changed import changed_section
from vitcli.report.compared_run import ComparedRun, best_of, letter_of
from vitcli.report.curves import training_section
from vitcli.report.evaluated_network import EvaluatedNetwork
from vitcli.report.headline import METRIC_NAMES, headline_of
from vitcli.report.in_words import duration
from vitcli.report.markup import Content, Html, many, tag, unbroken
from vitcli.report.one_run import foot
from vitcli.report.origin import shown_value
from vitcli.report.page import Column, Section, commands, page, table
from vitcli.report.run_record import PLACES, RunRecord
from vitcli.report.svg import interval

#: keys that say where and how fast, not what; two runs that differ in them and the seed are repetitions
_NOT_THE_RESULT = (*PLACES, "data_dir", "device", "num_parallel_workers", "log_interval", "report")


def report_of_several(
    records: Sequence[RunRecord | None], evaluations: Sequence[EvaluatedNetwork | None], kind: str = "runs"
) -> str:
    """The page as text; the runs keep their order. Of each, at least one of the two is given.

    kind: what they are called.
    """
    runs = [
        ComparedRun(letter_of(number), number, record, evaluation)
        for number, (record, evaluation) in enumerate(zip(records, evaluations, strict=True))
    ]
    sections = [
        _runs_section(runs),
        _differences_section(runs),
        chance_section(runs),
        changed_section(runs),
        _seeds_section(runs),
        *_of_records(runs),
    ]
    best = best_of(runs)
    title = f"{len(runs)} {kind}" + (f" · best {best.result:.2f} %" if best and best.result is not None else "")
    return page(title, _head(runs, best, kind), sections, foot())


def _of_records(runs: Sequence[ComparedRun]) -> list[Section]:
    """What only the folders of runs tell."""
    known = [(run.record, run.letter) for run in runs if run.record]
    if not known:
        return []
    records, letters = zip(*known, strict=True)
    sections = [training_section(records, letters)]
    return [*sections, _commands_section([one.path for one in records])] if len(known) == len(runs) else sections


def _head(runs: Sequence[ComparedRun], best: ComparedRun | None, kind: str) -> Html:
    title = f"{len(runs)} {kind} compared"
    sentence = "Their results are not of the same kind, so none is called the best."
    if best and best.result is not None:
        title = f"{best.result:.2f} % {METRIC_NAMES.get(best.metric or '', best.metric or '')}"
        sentence = f"The best of {len(runs)} {kind}: {best.letter}, {best.name}. "
        sentence += headline_of(best.record, best.evaluation).sentence
    return many([
        tag("p", f"vitcli report · {len(runs)} {kind}", class_="kicker"),
        tag("h1", title),
        tag("p", unbroken(sentence), class_="subject"),
    ])  # fmt: skip


def _runs_section(runs: Sequence[ComparedRun]) -> Section:
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


def _run_row(run: ComparedRun, is_best: bool, scale: tuple[float, float]) -> list[Content]:
    name = METRIC_NAMES.get(run.metric or "", run.metric or "")
    result: Content = "none" if run.result is None else f"{run.result:.2f} % {name}"
    strip: Content = tag("span", "as logged", class_="quiet") if run.result is not None else ""
    said = ""
    if answers := run.answers:
        low, high = wilson(int(answers.correct.sum()), len(answers))
        places = [(value - scale[0]) / (scale[1] - scale[0]) for value in (low, float(answers.correct.mean()), high)]
        strip, said = interval(*places, color=run.color), f"{100 * low:.2f} – {100 * high:.2f}"
    cells = [run.mark, run.name, tag("span", result, class_="best") if is_best else result, strip, said]
    if (record := run.record) is None:
        return [*cells, "", ""]
    epoch = "" if record.best_epoch is None else f"{record.best_epoch} of {record.num_epochs or '?'}"
    if record.status != "done":
        cells[1] = f"{run.name} ({record.status})"
    return [*cells, epoch, duration(record.seconds)]


def _differences_section(runs: Sequence[ComparedRun]) -> Section:
    """The keys whose values differ, one row each, with the results above them."""
    section = Section("Differences")
    records = [run.record for run in runs if run.record]
    if len(records) < len(runs):  # the training is not known
        return section
    recipes = [record.recipe for record in records]
    names = differing_keys(recipes)
    section.lead = (
        f"{len(names)} keys of the recipes differ; all others are equal."
        if names
        else "The recipes are equal in every key."
    )
    columns = [Column("key"), *(Column(run.mark) for run in runs)]
    results = ["result, %", *("" if run.result is None else f"{run.result:.2f}" for run in runs)]
    rows: list[Sequence[Content]] = [results]
    rows += [[tag("code", name), *(_value(recipe, name) for recipe in recipes)] for name in names]
    versions = [str(record.env.get("torch", "")) for record in records]
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


def _seeds_section(runs: Sequence[ComparedRun]) -> Section:
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


def _repetitions(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    groups: list[list[ComparedRun]] = []
    for run in runs:
        if run.result is None:
            continue
        same = next((group for group in groups if _is_repetition(group[0], run)), None)
        if same is None:
            groups.append([run])
        else:
            same.append(run)
    return groups


def _is_repetition(one: ComparedRun, other: ComparedRun) -> bool:
    if not one.record or not other.record or not one.record.recipe or one.metric != other.metric:
        return False
    names = set(differing_keys([one.record.recipe, other.record.recipe])) - {*_NOT_THE_RESULT}
    return names == {"seed"}


def _group_row(group: Sequence[ComparedRun]) -> list[Content]:
    values = [run.result for run in group if run.result is not None]
    mean, deviation = mean_and_deviation(values)
    marks = many(many([run.mark, " "]) for run in group)
    seeds = ", ".join(shown_value(run.record.recipe.get("seed")) for run in group if run.record)
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
