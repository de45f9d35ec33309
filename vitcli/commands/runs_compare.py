"""`vitcli runs compare`: the keys in which runs differ, and what they came to; without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.markup import escape

from vitcli.engine.run_dir import write_result
from vitcli.errors import DataError, UsageError
from vitcli.log import SafeConsole
from vitcli.recipe.write import yaml_value
from vitcli.report import in_words
from vitcli.report.run_folders import find_run
from vitcli.report.run_list import epochs, facts
from vitcli.report.run_record import PLACES, RunRecord
from vitcli.report.text_table import Column, fits, table_lines, width_of


@dataclass(frozen=True)
class Group:
    """Runs of the same recipe with other seeds, or a single run."""

    runs: list[RunRecord]

    @property
    def name(self) -> str:
        more = len(self.runs) - 1
        return f"{self.runs[0].name} + {more}" if more else self.runs[0].name

    @property
    def seeds(self) -> str:
        seeds = [yaml_value(run.recipe.get("seed")) for run in self.runs]
        return ", ".join(seeds) if len(seeds) <= 5 else f"{len(seeds)} seeds"

    def numbers(self, name: str) -> list[float]:
        return [value for run in self.runs if (value := getattr(run, name)) is not None]

    def summary(self, name: str) -> dict[str, Any]:
        """mean, sd (of the sample; None for a single value) and the values."""
        values = self.numbers(name)
        sd = stdev(values) if len(values) > 1 else None
        return {"mean": mean(values) if values else None, "sd": sd, "values": values}

    def text(self, name: str) -> str:
        found = self.summary(name)
        words = in_words.duration if name == "seconds" else in_words.value
        of = f" ({len(found['values'])} of {len(self.runs)})" if len(found["values"]) < len(self.runs) else ""
        spread = "" if found["sd"] is None else f" ± {words(found['sd'])}"
        return f"{words(found['mean'])}{spread}{of if found['values'] else ''}"


def compare(words: list[str], *, json_file: Path | None = None) -> None:
    """Print one row for each group of runs that differ only in their seed; keys that differ, then results.

    Raises:
        UsageError: there is no such run, or only one. DataError: the recipe of a run cannot be read.
    """
    runs = [RunRecord(path) for path in dict.fromkeys(find_run(word) for word in words)]
    if len(runs) < 2:
        raise UsageError("a comparison needs at least two runs", help="vitcli runs compare RUN RUN")
    if without := next((run for run in runs if not run.recipe), None):
        raise DataError(f"{without.path}: {without.notes[0]}", help="leave this run out")
    keys, groups = differing_keys(runs), grouped(runs)
    console = SafeConsole(highlight=False, emoji=False, soft_wrap=True)
    width = width_of(console)
    columns = _columns(keys, groups)
    for line in table_lines(columns, None) if fits(columns, width) else _turned(columns, width or 0):
        console.print(escape(line))
    if any(len(group.runs) > 1 for group in groups):
        console.print("mean ± standard deviation over runs that differ only in `seed`")
    for note in _notes(runs):
        console.note(note)
    if json_file:
        write_result(json_file, [_facts(keys, group) for group in groups])


def differing_keys(runs: list[RunRecord]) -> list[str]:
    """The keys, besides `seed` and the places of the runs, that have not the same value in all of them."""
    all_keys = dict.fromkeys(key for run in runs for key in run.recipe if key not in ("seed", *PLACES))
    return [key for key in all_keys if len({_text(run, key) for run in runs}) > 1]


def grouped(runs: list[RunRecord]) -> list[Group]:
    """Runs with the same values of all keys but `seed`, in the order in which the first of each was given."""
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        settings = {key: value for key, value in run.recipe.items() if key not in ("seed", *PLACES)}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(run)
    return [Group(members) for members in groups.values()]


def _text(run: RunRecord, key: str) -> str:
    return yaml_value(run.recipe[key]) if key in run.recipe else "-"


def _columns(keys: list[str], groups: list[Group]) -> list[Column]:
    metrics = {run.metric for group in groups for run in group.runs if run.metric}
    of_all = f" {next(iter(metrics))}" if len(metrics) == 1 else ""
    seeds = len({yaml_value(run.recipe.get("seed")) for group in groups for run in group.runs}) > 1
    columns = [Column("run", [group.name for group in groups])]
    columns += [Column(key, [_text(group.runs[0], key) for group in groups]) for key in keys]
    if seeds:
        columns.append(Column("seed", [group.seeds for group in groups]))
    if not of_all and metrics:
        columns.append(Column("metric", [group.runs[0].metric or "" for group in groups]))
    results = {f"best{of_all}": "best", f"last{of_all}": "last", "time": "seconds"}
    return columns + [
        Column(title, [group.text(name) for group in groups], right=True) for title, name in results.items()
    ]


def _turned(columns: list[Column], width: int) -> list[str]:
    """The same table with a column for each run, below each other as many as fit."""
    runs = list(zip(*(column.cells for column in columns), strict=True))
    titles = Column("", [column.title for column in columns[1:]])
    lines: list[str] = []
    part: list[Column] = []
    for run in runs:
        column = Column(run[0], list(run[1:]))
        if part and not fits([titles, *part, column], width):
            lines += [*table_lines([titles, *part], width), ""]
            part = []
        part.append(column)
    return [*lines, *table_lines([titles, *part], width)]


def _notes(runs: list[RunRecord]) -> list[str]:
    """What makes the numbers of the runs incomparable."""
    notes = [f"{run.name} is {run.status}, after {epochs(run)} epochs" for run in runs if run.status != "done"]
    images = {json.dumps(run.data.get("val"), sort_keys=True) for run in runs if run.data}
    if len(images) > 1:
        notes.append("the runs were not evaluated on the same images")
    if len({run.metric for run in runs if run.metric}) > 1:
        notes.append("the runs were not measured by the same metric")
    return notes


def _facts(keys: list[str], group: Group) -> dict[str, Any]:
    results = {name: group.summary(name) for name in ("best", "last", "seconds")}
    return {
        "keys": {key: group.runs[0].recipe.get(key) for key in keys},
        **results,
        "runs": list(map(facts, group.runs)),
    }
