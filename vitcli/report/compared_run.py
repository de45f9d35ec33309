"""One of several runs or networks that a report compares, with its letter and color."""

from collections.abc import Sequence
from dataclasses import dataclass

from vitcli.evaluators.answers import ImageAnswers
from vitcli.report.evaluated_network import EvaluatedNetwork
from vitcli.report.markup import Html, tag
from vitcli.report.run_record import RunRecord
from vitcli.report.svg import NUM_COLORS


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs that are compared."""

    letter: str  #: A, B, …: its name in tables and charts
    color: int
    record: RunRecord | None  #: None: it is a network that no run is known of
    evaluation: EvaluatedNetwork | None

    @property
    def name(self) -> str:
        return self.record.name if self.record else self.evaluation.source if self.evaluation else ""

    @property
    def answers(self) -> ImageAnswers | None:
        answers = self.evaluation.answers if self.evaluation else None
        return answers if isinstance(answers, ImageAnswers) else None

    @property
    def metric(self) -> str | None:
        logged = self.record.metric if self.record else None
        return logged or ("top1" if self.answers else None)

    @property
    def result(self) -> float | None:
        """Measured now, else as logged; in percent."""
        now = self.evaluation.numbers.get(self.metric or "") if self.evaluation else None
        logged = self.record.best if self.record else None
        return logged if now is None else now

    @property
    def mark(self) -> Html:
        return tag("span", self.letter, class_=f"run series-{self.color % NUM_COLORS + 1}")


def letter_of(number: int) -> str:
    """A … Z, AA, AB, …"""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def best_of(runs: Sequence[ComparedRun]) -> ComparedRun | None:
    """That with the largest result; of equal ones the first. None: none has a result, or they measure other things."""
    measured = [run for run in runs if run.result is not None]
    if len({run.metric for run in measured}) != 1:
        return None
    return max(measured, key=lambda run: run.result or 0.0)
