"""Two networks on the same images: whether one is better, and which images they answer differently."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vitcli.data.source import Source
from vitcli.errors import DataError, UsageError
from vitcli.evaluators.answers import ImageAnswers
from vitcli.evaluators.statistics import mcnemar, wilson

#: images that the table shows
NUM_SHOWN = 10
#: below this probability a difference is called one
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison:
    """The answers of two networks to the same images, in the same order, with the classes in the same order."""

    first: ImageAnswers
    second: ImageAnswers

    @cached_property
    def only_first(self) -> np.ndarray:
        """Indices of the images that only the first network answers correctly."""
        return np.flatnonzero(self.first.correct & ~self.second.correct)

    @cached_property
    def only_second(self) -> np.ndarray:
        return np.flatnonzero(~self.first.correct & self.second.correct)

    @cached_property
    def both_correct(self) -> int:
        """Images that both answer correctly."""
        return int((self.first.correct & self.second.correct).sum())

    @property
    def both_wrong(self) -> int:
        return len(self.first) - self.both_correct - len(self.only_first) - len(self.only_second)

    @cached_property
    def changed(self) -> np.ndarray:
        """Indices of the images that get another answer, right or wrong."""
        return np.flatnonzero(self.first.predicted != self.second.predicted)

    @cached_property
    def p(self) -> float:
        """See `mcnemar`."""
        return mcnemar(len(self.only_first), len(self.only_second))

    def as_dict(self) -> dict[str, Any]:
        return {
            "num_images": len(self.first),
            "top1_first": 100 * float(self.first.correct.mean()),
            "top1_second": 100 * float(self.second.correct.mean()),
            "only_first": len(self.only_first),
            "only_second": len(self.only_second),
            "num_changed": len(self.changed),
            "mcnemar_p": self.p,
        }

    def rows(self, *, written: bool = False) -> list[tuple[str, str]]:
        """The rows of a table. written: all answers are written to a file."""
        fewer, more = sorted((self.first.correct.sum(), self.second.correct.sum()))
        which = "second" if self.second.correct.sum() == more else "first"
        verdict = f"the {which} is better" if self.p < SIGNIFICANT else "no difference is shown"
        if fewer == more:
            verdict = "both are equally often right"
        rows = [
            ("images", f"{len(self.first):,}, the same for both"),
            ("top-1, first", _top1(self.first)),
            ("top-1, second", _top1(self.second)),
            ("right only", f"first {len(self.only_first):,}, second {len(self.only_second):,}"),
            ("McNemar's exact p", f"{self.p:.3g}  ({verdict} at {100 * SIGNIFICANT:g} %)"),
            ("other answers", f"{len(self.changed):,} images"),
        ]
        rows += [(f"  {self.first.names[index]}", self._answers_to(index)) for index in self.changed[:NUM_SHOWN]]
        if (hidden := len(self.changed) - NUM_SHOWN) > 0:
            rows.append(("", f"… and {hidden:,} more" + "; --predictions FILE has all" * (not written)))
        return rows

    def _answers_to(self, index: int) -> str:
        names = self.first.class_names
        said = " -> ".join(
            f"{names[one.predicted[index]]!r} {100 * one.confidence[index]:.1f} %" for one in (self.first, self.second)
        )
        return f"{said}  (it is {names[self.first.targets[index]]!r})"


def compared(first: ImageAnswers, second: ImageAnswers) -> Comparison | None:
    """The comparison; the classes of the second network are brought into the order of the first by name.

    None: they are not answers to the same images, or the networks have other classes.
    """
    if first.names != second.names or {*first.class_names} != {*second.class_names}:
        return None
    if first.class_names != second.class_names:
        column = {name: number for number, name in enumerate(second.class_names)}
        order = np.array([column[name] for name in first.class_names])
        targets, logits = np.argsort(order)[second.targets], second.logits[:, order]
        second = ImageAnswers(second.names, first.class_names, targets, logits)
    return Comparison(first, second) if np.array_equal(first.targets, second.targets) else None


def check_comparable(first: Source, second: Source) -> None:
    """Whether two networks are evaluated on the same images with the same classes, before anything is computed.

    Raises:
        UsageError: the networks have other classes. DataError: the images differ, or have any number of classes.
    """
    ours, theirs = first.class_names or [], second.class_names or []
    if {*ours} != {*theirs}:
        known = {*ours} ^ {*theirs}
        shown = ", ".join(map(repr, sorted(known)[:3])) + ", …" * (len(known) > 3)
        message = f"the networks have other classes ({len(ours)} and {len(theirs)}); only one of them knows {shown}"
        raise UsageError(message, help="compare networks with the same classes")
    if first.multi_label or second.multi_label:
        message = "only networks that give each image one class are compared"
        raise DataError(message, help="validate them one by one")
    help = "give the images for both: --data_dir DIR"
    if len(first) != len(second):
        raise DataError(f"the networks have other validation images: {len(first):,} and {len(second):,}", help=help)
    for index in range(len(first)):
        if (name := first.name(index)) != second.name(index) or first.labels(index) != second.labels(index):
            message = f"the networks have other validation images: {name} and {second.name(index)}"
            raise DataError(message, help=help)


def _top1(answers: ImageAnswers) -> str:
    correct, total = int(answers.correct.sum()), len(answers)
    low, high = (100 * bound for bound in wilson(correct, total))
    return f"{100 * correct / total:.2f} %  ({correct:,} correct; 95 % interval {low:.2f} .. {high:.2f})"
