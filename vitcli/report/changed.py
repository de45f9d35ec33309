"""The part of a comparison of two networks that shows images: those that only one of them gets right."""

from collections.abc import Sequence

import numpy as np

from vitcli.report.compared_run import ComparedRun
from vitcli.report.comparison import Comparison, compared
from vitcli.report.markup import Html
from vitcli.report.mistakes import Pictured, card
from vitcli.report.page import Section, grid

#: images of the gallery
NUM_CHANGED = 12


def changed_section(runs: Sequence[ComparedRun]) -> Section:
    """The images that only one of two networks gets right; nothing for more of them, or for other images."""
    section = Section("Changed images")
    if len(runs) != 2 or not all(run.answers for run in runs):
        return section
    first, second = runs
    assert first.answers is not None
    assert second.answers is not None
    assert first.evaluation is not None
    found = compared(first.answers, second.answers)
    if found is None or first.evaluation.images is None:
        return section
    indices = most_changed(found)
    if not indices:
        section.lead = "Both are right and wrong on the same images."
        return section
    total = len(found.only_first) + len(found.only_second)
    section.lead = f"{total:,} images are answered correctly by one of the two only."
    if total > len(indices):
        section.lead += f" Shown are the {len(indices)} where the probability of the true class differs most."
    shown = first.evaluation.look(indices)
    cards = [_card(found, runs, index, one) for index, one in zip(indices, shown, strict=True)]
    section.parts.append(grid(cards, "gallery"))
    return section


def most_changed(found: Comparison, most: int = NUM_CHANGED) -> list[int]:
    """Images that only one gets right, by how much the probabilities of their true class differ, largest first."""
    changed = np.union1d(found.only_first, found.only_second)
    gap = np.abs(found.first.target_probability - found.second.target_probability)[changed]
    return changed[np.argsort(-gap, kind="stable")[:most]].tolist()


def _card(found: Comparison, runs: Sequence[ComparedRun], index: int, shown: Pictured | None) -> Html:
    names = found.first.class_names
    said = [(run.mark, one) for run, one in zip(runs, (found.first, found.second), strict=True)]
    lines = [(mark, names[one.predicted[index]], float(one.confidence[index])) for mark, one in said]
    true = names[found.first.targets[index]]
    answered = " and ".join(names[one.predicted[index]] for _, one in said)
    return card(found.first.names[index], shown, [*lines, ("true", true, None)], f"{true}, taken for {answered}")
