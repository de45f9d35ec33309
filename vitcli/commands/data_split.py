"""`vitcli data split`: a set of images as a new data set of image folders, with a training and a validation part."""

import os
import shutil
from collections import Counter
from pathlib import Path

from vitcli.data.class_names import class_name
from vitcli.data.datasets import build_pool, build_split
from vitcli.data.holdout import part_of
from vitcli.data.image_formats import LONGEST_START, format_of, named_like_image
from vitcli.data.source import MissingSplit, Source
from vitcli.data.sources.folder import FolderImages
from vitcli.data.split_list import write_split_list
from vitcli.errors import DataError, DiskError, UsageError, is_disk_full
from vitcli.log import Reporter, phase
from vitcli.recipe.load import Recipe
from vitcli.recipe.schema import Dataset


def split(recipe: Recipe, out: Path, test_ratio: float | None = None) -> Path:
    """Write the data set of `recipe`, split by its keys, to the new folder `out`; returns `out`.

    The folder has train/CLASS/…, val/CLASS/…, with `test_ratio` also test/CLASS/…, and split.csv. It appears only when
    it is complete.

    Raises:
        VitcliError: see `errors.py`; `out` exists, or the images cannot be split or written.
    """
    section = recipe.dataset
    _check(section, out)
    reporter = Reporter(enabled=True)
    with phase("listing images"):
        parts = _parts(section, test_ratio)
    for part in parts.values():
        reporter.notes(part.notes)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with phase("writing the data set"):
            num_files = _write(parts, unfinished)
        unfinished.rename(out)
    except OSError as error:
        if is_disk_full(error):
            raise DiskError(f"the disk that holds {out.parent} is full") from None
        raise DataError(f"cannot write {out}: {error.strerror}: {error.filename or out}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    rows = [(name, f"{len(part):,} images of {_num_classes(part):,} classes") for name, part in parts.items()]
    made = ", ".join(f"{count:,} {how}" for how, count in num_files.items())
    reporter.table(str(out), [*rows, ("files", made)])
    if num_files["hard links"]:
        reporter.say("hard links take no extra space; a change to a file is seen in both places")
    reporter.next(f"vitcli train --data_dir {out}")
    return out


def _check(section: Dataset, out: Path) -> None:
    """UsageError for what cannot be split, or not written there."""
    if section.held_out is None:
        help = "give --val_ratio 0.2 for a fifth of each class, or --val_fold 1/5"
        raise UsageError("the part for validation is not given", help=help)
    if os.path.lexists(out):
        raise UsageError(f"{out} exists already", help="give the name of a new folder with -o")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"cannot write {out}: there is no folder {out.parent}")
    data_dir = section.data_dir
    if data_dir and data_dir.is_dir() and out.resolve().is_relative_to(data_dir.resolve()):
        raise UsageError(f"{out} is inside the data set {data_dir}", help="give a folder outside of it with -o")
    try:
        build_split(section.model_copy(update={"val_ratio": None, "val_fold": None}), "val", needs_labels=False)
    except MissingSplit:
        return
    help = "train with it as it is, or give the folder of the training images alone"
    raise UsageError(f"the data set {data_dir or section.dataset} has a validation split already", help=help)


def _parts(section: Dataset, test_ratio: float | None) -> dict[str, Source]:
    """Name -> its images. All shares are of all images: the test part is taken first, then the others from the rest."""
    pool = build_pool(section)
    if pool.multi_label:
        help = "train on the table itself: --val_ratio and --val_fold split it"
        raise UsageError("images with several labels each cannot be written into folders of classes", help=help)
    if not test_ratio:
        return {name: part_of(pool, section, name) for name in ("train", "val")}
    start, end = section.held_out or (0, 0)
    if section.val_fold is None and test_ratio + end - start >= 1:
        raise UsageError(f"test_ratio {test_ratio:g} and val_ratio {end - start:g} leave no images for training")
    as_test = section.model_copy(update={"val_ratio": test_ratio, "val_fold": None})
    rest, test = (part_of(pool, as_test, name) for name in ("train", "val"))
    test.notes = []  # it speaks of validation
    if section.val_fold is None:
        section = section.model_copy(update={"val_ratio": (end - start) / (1 - test_ratio)})
    return {**{name: part_of(rest, section, name) for name in ("train", "val")}, "test": test}


def _write(parts: dict[str, Source], folder: Path) -> Counter[str]:
    """All images and split.csv; how many files were made in which way."""
    made, rows, places = Counter[str](), [], set[str]()
    for name, part in parts.items():
        for index in range(len(part)):
            [label] = part.labels(index)
            place = f"{name}/{_place(part, index, label)}"
            if place in places:
                raise DataError(f"two images would be {place}", help="give the images names that differ")
            places.add(place)
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            made[_put(part, index, folder / place)] += 1
            rows.append((place, [label], name))
    write_split_list(folder / "split.csv", rows)
    return made


def _place(source: Source, index: int, label: str) -> str:
    """Where an image is in its part: in the folder of its class, and if it is in one already, at the same place."""
    name = source.name(index)
    if label in ("", ".", "..") or label.startswith(".") or "/" in label or "\0" in label:
        raise DataError(f"the class {label!r} cannot be the name of a folder", help="give the class another name")
    if os.path.isabs(name) or ".." in Path(name).parts:
        name = os.path.basename(name)
    if not named_like_image(name):
        known = format_of(_file(source, index)[:LONGEST_START])
        name += known.suffixes[0] if known else ""
    first, _, below = name.partition("/")
    return name if below and class_name(first) == label else f"{label}/{name}"


def _put(source: Source, index: int, target: Path) -> str:
    """Make the file of an image, and say how."""
    if isinstance(source, FolderImages):
        origin = os.path.realpath(source.path(index))
        try:
            os.link(origin, target)
        except OSError:  # another disk, or one without links
            shutil.copy2(origin, target)
            return "copies"
        return "hard links"
    target.write_bytes(_file(source, index))
    return "unpacked files"


def _file(source: Source, index: int) -> bytes:
    file = source.file(index)
    if file is None:
        raise UsageError("the images of this data set are not files", help="split image folders, tables or archives")
    return file


def _num_classes(source: Source) -> int:
    return sum(count > 0 for count in source.class_counts().values())
