"""`vitcli predict`: the most probable classes of images, by an exported network or a checkpoint.

Nothing here imports torch: an artifact whose runtime does not need it is run without it.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from rich.progress import Progress

from vitcli.catalog import nearest
from vitcli.data.decode import BadImage, open_image
from vitcli.data.find_images import find_images
from vitcli.data.pixel_format import UnfitImage
from vitcli.deploy.artifact import fixed_by_export, is_artifact, open_artifact
from vitcli.deploy.classify import Classifier, ImageClassifier
from vitcli.deploy.pictures import check_folders, heat_folder, overlay_folder, picture_of
from vitcli.deploy.predictions import Answer, Write, csv_file, json_file, text_of
from vitcli.deploy.summary import Summary
from vitcli.disk import check_writable
from vitcli.errors import DataError, DiskError, UsageError, is_disk_full, printable
from vitcli.log import SafeConsole, phase
from vitcli.recipe.load import Recipe, load_recipe

#: classes that are shown if each image has exactly one and the user does not say how many
_TOP = 5
#: batches of images that are decoded while the network runs
_BATCHES_AHEAD = 2


#: probabilities (B, K) -> for each image the class whose heat map is drawn
Choice = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Seen:
    """A decoded image: what the network gets, and what is drawn on if pictures are wanted."""

    pixels: np.ndarray
    picture: Image.Image | None


def predict(
    source: str,
    images: Sequence[str],
    *,
    top: int | None = None,
    csv: Path | None = None,
    json: Path | None = None,
    heatmap: Path | None = None,
    heatmap_class: str | None = None,
    overlay: Path | None = None,
    recipe: Recipe | None = None,
    batch_size: int = 16,
    threads: int | None = None,
    device: str | None = None,
    on_bad_image: Literal["fail", "skip"] = "fail",
) -> None:
    """Print the classes of each image, in the order of the images; `cli/deployment.py` describes the options.

    Args:
        top: at most that many classes; None: the five most probable, or all that an image has if it may have several.
        heatmap, overlay: folders for a picture of each image, with a heat map on it, and with the answer below it.
        heatmap_class: the class whose evidence the heat maps show; None: the most probable one of each image.
        recipe: what the user says of the network and its images.

    Raises:
        VitcliError: see `errors.py`; DataError at the end, if an image could not be read and is not to be skipped.
    """
    paths, notes = find_images(images)
    check_writable(csv)
    check_writable(json)
    check_folders(heatmap, overlay)
    if heatmap_class is not None and not heatmap:
        raise UsageError("--heatmap_class has no effect without --heatmap", help="add --heatmap DIR, or remove it")
    messages = _console(stderr=True)
    for note in notes:
        messages.note(note)
    recipe = recipe or load_recipe()
    classifier = _open_classifier(source, recipe, threads, device, messages)
    explain = _choice(classifier, heatmap_class) if heatmap else None
    how = {"top": top, "batch_size": batch_size, "max_image_pixels": recipe.dataset.max_image_pixels}
    how |= {"draw": bool(heatmap or overlay), "explain": explain}
    files = _files(csv, json, heatmap, overlay, paths, classifier)
    summary, num_bad = Summary(classifier.class_names, multi_label=classifier.thresholds is not None), 0
    quiet = sys.stdout.isatty() or not sys.stderr.isatty()  # a bar must not mix with the answers
    progress = Progress(console=messages, redirect_stdout=False, transient=True, disable=quiet)
    with _outputs(files) as outputs, progress:
        task = progress.add_task("images", total=len(paths))
        for answer in _answers(classifier, paths, **how):
            if answer.error:
                num_bad += 1
                messages.print(f"error: {printable(answer.error)}")
            for write in (*outputs, summary.add):
                write(answer)
            progress.advance(task)
    if summary.num_images > 1:
        messages.print(summary.text())
    if num_bad and on_bad_image == "fail":
        help = "fix or remove the images named above, or add --on_bad_image skip"
        raise DataError(f"{num_bad:,} of {len(paths):,} images could not be read; the others are classified", help=help)


def _open_classifier(
    source: str, recipe: Recipe, threads: int | None, device: str | None, messages: SafeConsole
) -> ImageClassifier:
    if is_artifact(source):
        if others := [name for name in recipe.origins if name not in ("class_names", "max_image_pixels")]:
            raise fixed_by_export(others, help="remove it, or export the network again with it")
        artifact = open_artifact(source, class_names=recipe.dataset.class_names)
        return Classifier(artifact, threads=threads, device=device)
    with phase("loading the network"):
        from vitcli.deploy.bridges import ModelClassifier
        from vitcli.networks.opened import open_model

        opened = open_model(source, recipe=recipe)
    for note in opened.notes:
        messages.note(note)
    return ModelClassifier(opened, threads=threads, device=device or "auto")


def _choice(classifier: ImageClassifier, name: str | None) -> Choice:
    """Choose for heat maps the class `name`, or for each image the most probable one.

    Raises:
        UsageError: the network has no such class, or no heat maps can be made of it.
    """
    classifier.try_heat_maps()
    names = list(classifier.class_names)
    if name is None:
        return lambda rows: rows.argmax(1)
    if name not in names:
        likely = nearest(name, names)
        help = f"did you mean {likely!r}?" if likely else "one of its class names, as in the answers"
        raise UsageError(f"the network has no class {name!r}", help=help)
    return lambda rows: np.full(len(rows), names.index(name))


def _answers(
    classifier: ImageClassifier,
    paths: Sequence[str],
    *,
    top: int | None,
    batch_size: int,
    max_image_pixels: int,
    draw: bool,
    explain: Choice | None,
) -> Iterator[Answer]:
    """One answer for each path, in their order; threads decode the next images while the network runs."""

    shown = _TOP if top is None and classifier.thresholds is None else top

    def see(path: str) -> _Seen | BadImage:
        try:
            image = open_image(path, max_image_pixels=max_image_pixels)
            return _Seen(classifier.pixels(image), picture_of(image, classifier.transform) if draw else None)
        except BadImage as error:
            return error
        except UnfitImage as error:
            return BadImage(path, f"{error.message}; {error.help}")

    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        ahead = deque(pool.map(see, batch) for batch in batches[:_BATCHES_AHEAD])
        for number, batch in enumerate(batches, start=_BATCHES_AHEAD):
            images = list(ahead.popleft())
            if number < len(batches):
                ahead.append(pool.map(see, batches[number]))
            answers = iter(_classified(classifier, [image for image in images if isinstance(image, _Seen)], explain))
            for path, image in zip(batch, images, strict=True):
                if isinstance(image, BadImage):
                    yield Answer(path, [], image.message)
                else:
                    answer = next(answers)
                    yield replace(answer, path=path, predictions=answer.predictions[:shown])


def _classified(classifier: ImageClassifier, images: Sequence[_Seen], explain: Choice | None) -> list[Answer]:
    """The answers for images that could be read, with all classes and without paths."""
    if not images:
        return []
    pixels = np.stack([image.pixels for image in images])
    rows, each = classifier(pixels), range(len(images))
    answers = [Answer("", classifier.labels(rows[i]), picture=images[i].picture) for i in each]
    if not explain:
        return answers
    classes, names = explain(rows), classifier.class_names
    maps = classifier.heat_maps(pixels, classes)
    of = [(names[number], float(row[number])) for number, row in zip(classes, rows, strict=True)]
    return [replace(answers[i], heat=maps[i], explained=of[i]) for i in each]


def _files(
    csv: Path | None,
    json: Path | None,
    heatmap: Path | None,
    overlay: Path | None,
    paths: Sequence[str],
    classifier: ImageClassifier,
) -> list[AbstractContextManager[Write]]:
    """What the user wants to have written, besides the terminal."""
    files: list[AbstractContextManager[Write]] = []
    files += [csv_file(csv)] if csv else []
    files += [json_file(json)] if json else []
    files += [heat_folder(heatmap, paths, classifier.transform)] if heatmap else []
    files += [overlay_folder(overlay, paths)] if overlay else []
    return files


@contextmanager
def _outputs(files: Sequence[AbstractContextManager[Write]]) -> Iterator[list[Write]]:
    """The functions that take each answer: for the terminal, and for each of the files, which are opened here."""
    console = _console()

    def say(answer: Answer) -> None:
        if not answer.error:
            text = text_of(answer).encode(console.encoding, "backslashreplace")  # a terminal may support few characters
            console.print(text.decode(console.encoding))
        if console.quiet and len(writes) == 1:
            sys.exit(0)  # the reader has ended (`vitcli predict … | head`), and no file is to be written

    writes: list[Write] = [say]
    try:
        with ExitStack() as opened:
            writes += [opened.enter_context(file) for file in files]
            yield writes
    except OSError as error:  # any fault of an image is a BadImage
        if is_disk_full(error):
            raise DiskError("the disk is full: not all predictions were written") from None
        raise UsageError(f"cannot write the predictions: {error.strerror} ({error.filename})") from None


def _console(*, stderr: bool = False) -> SafeConsole:
    return SafeConsole(markup=False, highlight=False, emoji=False, soft_wrap=True, stderr=stderr)
