"""The report of one run, or of one network that no run is known of: all parts in their order."""

import time
from collections.abc import Iterator

import vitcli
from vitcli.distributed import World
from vitcli.errors import VitcliError
from vitcli.evaluators.answers import ImageAnswers, MultiLabelAnswers
from vitcli.report.calibration import calibration_section
from vitcli.report.classes import classes_section, confusion_section
from vitcli.report.curves import training_section
from vitcli.report.evaluated_network import EvaluatedNetwork
from vitcli.report.first_batch import batch_section
from vitcli.report.headline import head, headline_of
from vitcli.report.markup import tag
from vitcli.report.mistakes import mistakes_section
from vitcli.report.multilabel import label_section
from vitcli.report.origin import (
    commands_section,
    data_section,
    environment_section,
    network_section,
    recipe_section,
)
from vitcli.report.page import MOST_PICTURES, Section, page
from vitcli.report.run_record import RunRecord


def report_of_one(record: RunRecord | None, evaluation: EvaluatedNetwork | None, world: World) -> str:
    """The page as text. At least one of the two is given.

    record: what the folder of the run tells. evaluation: its network, with its answers if the images are there.
    """
    name = record.name if record else evaluation.source if evaluation else ""
    sections: list[Section] = []
    if record:
        sections.append(training_section([record]))
    if evaluation:
        sections += _of_answers(evaluation)
    if record:
        sections += _of_run(record, evaluation, world, MOST_PICTURES - _num_pictures(sections))
    elif evaluation:
        sections.append(network_section(evaluation))
    title = f"{headline_of(record, evaluation).result} · {name}"
    return page(title, head(record, evaluation, name), sections, foot())


def foot() -> str:
    """Who made the page, and when."""
    return f"Written by vitcli {vitcli.__version__} on {time.strftime('%Y-%m-%d %H:%M')}. This file needs nothing else."


def _of_answers(evaluation: EvaluatedNetwork) -> Iterator[Section]:
    answers = evaluation.answers
    if isinstance(answers, MultiLabelAnswers):
        yield label_section(answers, evaluation.numbers)
    if isinstance(answers, ImageAnswers):
        yield classes_section(answers.per_class())
        yield confusion_section(answers)
        yield mistakes_section(answers, evaluation.look)
        yield calibration_section(answers, evaluation.temperature)


def _of_run(
    record: RunRecord, evaluation: EvaluatedNetwork | None, world: World, num_pictures: int
) -> Iterator[Section]:
    yield data_section(record, evaluation.notes if evaluation else [])
    if evaluation:
        yield _training_images(evaluation, world, num_pictures)
    yield recipe_section(record)
    yield environment_section(record)
    yield commands_section(record.path, has_classes=bool(evaluation is None or evaluation.class_names))


def _training_images(evaluation: EvaluatedNetwork, world: World, num_pictures: int) -> Section:
    try:
        return batch_section(evaluation.recipe, world, num_pictures)
    except VitcliError as error:
        said = f"The training images cannot be shown: {error.message.splitlines()[0]}"
        return Section("Training images", [tag("p", said, class_="note")])


def _num_pictures(sections: list[Section]) -> int:
    return sum(part.count("<img ") for section in sections for part in section.parts)
