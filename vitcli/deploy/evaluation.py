"""One evaluation of a network on its validation images: by which evaluators, and what they and the answers say."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vitcli import catalog
from vitcli.data.crops import Crops
from vitcli.data.datasets import build_splits
from vitcli.data.source import Source
from vitcli.deploy.subject import Subject
from vitcli.distributed import World
from vitcli.engine.failures import memory_in_words
from vitcli.engine.opened_data import found_on_main
from vitcli.engine.precision import build_autocast
from vitcli.errors import UsageError
from vitcli.evaluators.answers import Collector, ImageAnswers, MultiLabelAnswers
from vitcli.evaluators.evaluator import SINGLE_CROP, Evaluator, Setting, UnreadableImages
from vitcli.evaluators.multilabel import MultiLabel
from vitcli.evaluators.top1 import Top1
from vitcli.networks.classes import check_num_classes, numbered
from vitcli.networks.opened import no_classifier
from vitcli.tasks.task import Task

#: logits that are kept at most, 4 GiB; beyond that there are only the numbers of the evaluators
MOST_LOGITS = 2**30


@dataclass(frozen=True)
class Measured:
    """What an evaluation has found."""

    numbers: dict[str, float]
    facts: dict[str, Any]  #: the numbers, and of which crops they are
    rows: list[tuple[str, str]]
    brief: str  #: the numbers that matter most, in a line
    answers: ImageAnswers | MultiLabelAnswers | None  #: None: they were not kept


@dataclass(frozen=True)
class Evaluation:
    """An evaluation before it begins; every rank has the same."""

    subject: Subject
    kinds: dict[str, type[Evaluator]]
    train: Source | None
    val: Source | None
    crops: Crops | None
    world: World

    @property
    def notes(self) -> list[str]:
        return [note for source in (self.train, self.val) if source for note in source.notes]

    @property
    def has_answers(self) -> bool:
        """Whether the answer to each image is known afterwards."""
        return any(self._keeps(kind) for kind in self.kinds.values())

    @property
    def multi_label(self) -> bool:
        """Whether the answers are for any number of classes per image."""
        return any(issubclass(kind, MultiLabel) for kind in self.kinds.values())

    def check_answers(self, what: str) -> None:
        """UsageError if there will be no answers, which `what` needs."""
        if self.has_answers:
            return
        measured = any(issubclass(kind, Top1 | MultiLabel) for kind in self.kinds.values())
        if measured:
            message = f"{what} needs {len(self.val or ())} x {len(self.subject.class_names)} logits at the same time"
            raise UsageError(f"{message}, more than {MOST_LOGITS:,}", help="validate a part of the images")
        help = "add --evaluate top1, or multilabel for images with any number of classes"
        raise UsageError(f"{what} needs answers with classes, which {', '.join(self.kinds)} does not give", help=help)

    def run(self) -> Measured:
        """Evaluate. Every rank must call it. Raises VitcliError: see `Evaluator`; all unreadable images are listed."""
        recipe, world = self.subject.recipe, self.world
        setting = Setting(
            recipe,
            self.val,
            world,
            build_autocast(recipe, world.device),
            train=self.train,
            crops=self.crops,
            findings=self.subject.findings,
        )
        numbers, rows, brief, answers = {}, [], [], None
        with memory_in_words("lower --val_batch_size"), _all_unreadable_listed():
            for kind in self.kinds.values():
                evaluator = kind(setting)
                collect = self._collector(kind)
                found = evaluator(self.subject.network, answers=collect)
                numbers |= found
                rows += evaluator.rows(found)
                brief += [f"{name} {found[name]:.4g}" for name in evaluator.metrics if name in found]
                if warning := evaluator.warning(found):
                    rows.append(("warning", warning))
                if collect:
                    thresholds = evaluator.thresholds if isinstance(evaluator, MultiLabel) else None
                    answers = collect.answers(thresholds=thresholds)
        return Measured(numbers, numbers | self._crop_facts(numbers), rows, ", ".join(brief), answers)

    def of(self, subject: Subject) -> "Evaluation":
        """The same evaluation of another network with the same classes."""
        return replace(self, subject=subject)

    def _keeps(self, kind: type[Evaluator]) -> bool:
        fits = self.val is not None and len(self.val) * len(self.subject.class_names) <= MOST_LOGITS
        return fits and issubclass(kind, Top1 | MultiLabel)

    def _collector(self, kind: type[Evaluator]) -> Collector | None:
        if not self._keeps(kind) or self.val is None:
            return None
        as_many = issubclass(kind, MultiLabel) and not self.val.multi_label
        return Collector(self.val.with_one_label_each() if as_many else self.val, self.world)

    def _crop_facts(self, numbers: dict[str, float]) -> dict[str, Any]:
        if self.crops is None:
            return {}
        single = {name.removeprefix(SINGLE_CROP): value for name, value in numbers.items() if SINGLE_CROP in name}
        return {
            "eval_crops": self.crops.protocol,
            "crop_scales": list(self.crops.used_scales),
            "crop_average": self.crops.average,
            "num_crops": self.crops.num_crops,
            "single_crop": single,
        }


def prepared(subject: Subject, crops: Crops | None, world: World) -> Evaluation:
    """The evaluation that the user asks for, else that of the task, with its images; every rank must call it.

    Raises:
        UsageError: there is no evaluator, or crops do not suit it. WeightsError: the network does not suit it.
        DataError: the images cannot be read, or have other classes.
    """
    kinds = _evaluators(subject, crops)
    needs_train = any(kind.needs_train for kind in kinds.values())
    train, val = found_on_main(partial(_images, subject, needs_train=needs_train))
    if subject.named_by == "number" and val:
        check_num_classes(subject.recipe, val.class_names or [])
    return Evaluation(subject, kinds, train, val, crops, world)


@contextmanager
def _all_unreadable_listed() -> Iterator[None]:
    """No file has a list of them, so the message has all."""
    try:
        yield
    except UnreadableImages as error:
        error.message = error.listing()
        raise


def _evaluators(subject: Subject, crops: Crops | None) -> dict[str, type[Evaluator]]:
    """What the user asks for, else what the task names; an error if the network or the crops do not suit them."""
    task: type[Task] = catalog.load("tasks", subject.recipe.learning.task)
    names = subject.recipe.evaluation.evaluate or task.evaluators
    if not names:
        message = f"`task: {subject.recipe.learning.task}` names no evaluator of the network alone"
        raise UsageError(message, help="choose evaluators with --evaluate")
    kinds: dict[str, type[Evaluator]] = {name: catalog.load("evaluators", name) for name in names}
    if not subject.class_names and any(kind.needs_classifier for kind in kinds.values()):
        raise no_classifier(subject.source)
    if crops and not any(kind.takes_crops for kind in kinds.values()):
        help = f"remove it, or add --evaluate {task.evaluators[0] if task.evaluators else 'top1'}"
        raise UsageError(f"--eval_crops has no effect on {', '.join(names)}", help=help)
    return kinds


def _images(subject: Subject, *, needs_train: bool) -> tuple[Source | None, Source | None]:
    """Training images, if they are needed, and validation images, with the class indices of the network's outputs."""
    section = subject.recipe.dataset
    if not subject.class_names:  # the network knows no classes; the evaluators decide whether the data must have labels
        splits = build_splits(section, needs_labels=False)
        return splits.train, splits.val
    task: type[Task] = catalog.load("tasks", subject.recipe.learning.task)
    named = partial(numbered, section, subject.class_names, subject.named_by, multi_label=task.multi_label)
    return named("train") if needs_train else None, named("val")
