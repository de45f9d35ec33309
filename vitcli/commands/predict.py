"""`vitcli predict`: the most probable classes of images, by an exported network or a checkpoint.

Nothing here imports torch: an artifact whose runtime does not need it is run without it.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress

from vitcli.data.decode import BadImage, open_image
from vitcli.data.find_images import find_images
from vitcli.deploy.artifact import is_artifact, open_artifact
from vitcli.deploy.classify import Classifier, ImageClassifier, top_classes
from vitcli.deploy.predictions import Answer, Write, check_writable, csv_file, json_file, text_of
from vitcli.errors import DataError, DiskError, UsageError, is_disk_full
from vitcli.log import SteadyConsole

#: the pixels that the network gets of an image, or why the image cannot be read
Seen = np.ndarray | BadImage


def predict(
    source: str,
    images: Sequence[str],
    *,
    top: int = 5,
    csv: Path | None = None,
    json: Path | None = None,
    batch_size: int = 16,
    threads: int | None = None,
    device: str | None = None,
    on_bad_image: Literal["fail", "skip"] = "fail",
) -> None:
    """Print the `top` classes of each image, in the order of the images.

    Args:
        source: an artifact, or as `--ckpt_path`; class names and preprocessing travel with it.
        images: files, folders, patterns; "-" for a list on standard input.
        top: number of classes.
        csv, json: also write the result to these paths.
        batch_size: images that are classified together.
        threads: of the network; None: all cores.
        device: "cpu", "cuda", or for OpenVINO artifacts any of its devices; None: the device of the export, for a run a
            GPU if there is one.
        on_bad_image: the other images are classified in any case; "skip": unreadable images are not an error.

    Raises:
        VitcliError: see `errors.py`; DataError at the end, if an image could not be read.
    """
    paths, notes = find_images(images)
    check_writable(csv)
    check_writable(json)
    messages = _console(stderr=True)
    for note in notes:
        messages.print(f"note: {note}")
    classifier = _open_classifier(source, threads, device, messages)
    num_bad = 0
    with _outputs(csv, json) as outputs, _progress(len(paths), messages) as advance:
        for answer in _answers(classifier, paths, top=top, batch_size=batch_size):
            if answer.error:
                num_bad += 1
                messages.print(f"error: {answer.error}")
            for write in outputs:
                write(answer)
            advance()
    if num_bad and on_bad_image == "fail":
        raise DataError(
            f"{num_bad:,} of {len(paths):,} images could not be read; the others are classified",
            help="fix or remove the images named above, or add --on_bad_image skip",
        )


def _open_classifier(source: str, threads: int | None, device: str | None, messages: Console) -> ImageClassifier:
    if is_artifact(source):
        return Classifier(open_artifact(source), threads=threads, device=device)
    from vitcli.deploy.model_classifier import ModelClassifier
    from vitcli.networks.opened import open_model

    opened = open_model(source)
    for note in opened.notes:
        messages.print(f"note: {note}")
    return ModelClassifier(opened, threads=threads, device=device or "auto")


def _answers(classifier: ImageClassifier, paths: Sequence[str], *, top: int, batch_size: int) -> Iterator[Answer]:
    """One answer for each path, in their order; the network sees `batch_size` readable images at a time."""

    def see(path: str) -> Seen:
        try:
            return classifier.pixels(open_image(path))
        except BadImage as error:
            return error

    def classified(batch: list[tuple[str, Seen]]) -> Iterator[Answer]:
        pixels = [seen for _, seen in batch if not isinstance(seen, BadImage)]
        rows = iter(classifier(np.stack(pixels)) if pixels else ())
        for path, seen in batch:
            if isinstance(seen, BadImage):
                yield Answer(path, [], seen.message)
            else:
                yield Answer(path, top_classes(next(rows), classifier.class_names, top))

    batch: list[tuple[str, Seen]] = []
    num_readable = 0
    for path, seen in _ahead(see, paths, num_ahead=2 * batch_size):
        batch.append((path, seen))
        num_readable += not isinstance(seen, BadImage)
        if num_readable == batch_size:
            yield from classified(batch)
            batch, num_readable = [], 0
    yield from classified(batch)


def _ahead(see: Callable[[str], Seen], paths: Iterable[str], *, num_ahead: int) -> Iterator[tuple[str, Seen]]:
    """(path, see(path)) in order, computed by threads while the network runs: decoding releases Python's lock."""
    waiting: deque[tuple[str, Future[Seen]]] = deque()
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for path in paths:
            waiting.append((path, pool.submit(see, path)))
            if len(waiting) > num_ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        for path, future in waiting:
            yield path, future.result()


@contextmanager
def _outputs(csv: Path | None, json: Path | None) -> Iterator[list[Write]]:
    """The functions that take each answer: for the terminal, and for the files that were given, which are replaced."""
    console = _console()

    def say(answer: Answer) -> None:
        if not answer.error:
            text = text_of(answer).encode(console.encoding, "backslashreplace")  # a terminal may support few characters
            console.print(text.decode(console.encoding))
        if console.quiet and len(writes) == 1:
            sys.exit(0)  # the reader has ended (`vitcli predict … | head`), and no file is to be written

    writes: list[Write] = [say]
    try:
        with ExitStack() as files:
            for file, opened in ((csv, csv_file), (json, json_file)):
                if file:
                    writes.append(files.enter_context(opened(file)))
            yield writes
    except OSError as error:  # any fault of an image is a BadImage
        if is_disk_full(error):
            raise DiskError("the disk is full: not all predictions were written") from None
        raise UsageError(f"cannot write the predictions: {error.strerror} ({error.filename})") from None


@contextmanager
def _progress(total: int, messages: Console) -> Iterator[Callable[[], None]]:
    """A progress bar where it does not mix with the answers; call the function after each image."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield lambda: None
        return
    with Progress(console=messages, redirect_stdout=False, transient=True) as progress:
        task = progress.add_task("images", total=total)
        yield lambda: progress.advance(task)


def _console(*, stderr: bool = False) -> Console:
    return SteadyConsole(markup=False, highlight=False, emoji=False, soft_wrap=True, stderr=stderr)
