"""Splits one set of images into a training and a validation part: at random, by class, and never through a group.

A part is a function of the names of the images and of the key `split_seed`, so training, resuming and validation agree
on it without a file, and a copy of the data is split in the same way.
"""

import re
from collections import Counter

import numpy as np

from vitcli.data.source import Source
from vitcli.data.streams import stream, stream_seed
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset


def part_of(pool: Source, section: Dataset, split: str) -> Source:
    """The images of `pool` that `val_fold` or `val_ratio` hold out for validation ("val"), or the others ("train").

    Raises:
        DataError: no image would be left in one of the parts.
        UsageError: `group_by` does not match the name of an image.
    """
    assert section.held_out is not None
    start, end = section.held_out
    places = _places(pool, section)
    is_val = (start <= places) & (places < end)
    if not 0 < is_val.sum() < len(pool):
        kind = "groups" if section.group_by or pool.groups else "images"
        message = f"{_in_words(section)} leaves no images for one of the parts: there are too few {kind}"
        raise DataError(message, help="give another val_ratio or val_fold")
    part = pool.select(np.flatnonzero(is_val == (split == "val")))
    part.notes = [*pool.notes, *_lacking(pool, is_val)] if split == "train" else [_note(pool, section, is_val)]
    return part


def _places(pool: Source, section: Dataset) -> np.ndarray:
    """(n,) in [0, 1): the images of each class lie at equal distances, in an order and from a start drawn for it.

    So any interval has the share of each class that its length is, to one image. A group lies at the place of its
    middle, among those of the class that most of its images have. An image with several classes counts as one of the
    rarest of them (`Source.strata`).
    """
    classes = pool.strata()
    members: dict[str, list[int]] = {}
    for index, group in enumerate(_groups(pool, section.group_by)):
        members.setdefault(group, []).append(index)
    of_class: dict[int, list[str]] = {}
    for group, indices in members.items():
        of_class.setdefault(Counter(classes[indices].tolist()).most_common(1)[0][0], []).append(group)
    places = np.empty(len(pool))
    for label, groups in of_class.items():
        groups.sort(key=lambda group: stream_seed(f"split {group}", section.split_seed))
        sizes = np.array([len(members[group]) for group in groups])
        middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
        start = stream("split start", section.split_seed, label).random()
        for group, place in zip(groups, (middles + start) % 1, strict=True):
            places[members[group]] = place
    return places


def _groups(pool: Source, group_by: str | None) -> list[str]:
    """What keeps images together: the part of the name that `group_by` matches; otherwise what the source says."""
    if group_by is None:
        return [pool.group(index) for index in range(len(pool))]
    names = [pool.name(index) for index in range(len(pool))]
    found = [re.search(group_by, name) for name in names]
    if None in found:
        name = names[found.index(None)]
        help = "the regular expression must match a part of each name, such as 'patient\\d+'"
        raise UsageError(f"group_by {group_by!r} does not match {name!r}", help=help)
    return [match[match.re.groups and 1] for match in found if match]


def _note(pool: Source, section: Dataset, is_val: np.ndarray) -> str:
    note = f"{_in_words(section)}: {int(is_val.sum()):,} of {len(pool):,} images are held out for validation"
    if section.group_by or pool.groups is not None:
        note += f"; {len(set(_groups(pool, section.group_by))):,} groups stay together"
    return note


def _lacking(pool: Source, is_val: np.ndarray) -> list[str]:
    """Notes on classes of which one of the parts has no image."""
    notes, all_images = [], pool.class_counts()
    for what, part in (("validation", is_val), ("training", ~is_val)):
        counts = pool.select(np.flatnonzero(part)).class_counts()
        if lacking := [name for name, count in all_images.items() if count and not counts[name]]:
            shown = ", ".join(map(repr, lacking[:5]))
            notes.append(f"{len(lacking)} classes have no {what} images: {shown}{', …' * (len(lacking) > 5)}")
    return notes


def _in_words(section: Dataset) -> str:
    return f"val_fold {section.val_fold}" if section.val_fold else f"val_ratio {section.val_ratio:g}"
