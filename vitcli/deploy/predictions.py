"""The results of `vitcli predict`: text for people, CSV for spreadsheets, JSON for programs; image by image."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vitcli.errors import UsageError

#: first characters of a cell that a spreadsheet would compute instead of showing it
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Answer:
    """The result for one image."""

    path: str
    predictions: list[tuple[str, float]]  #: class, probability; most probable first
    error: str | None = None  #: why the image could not be read


Write = Callable[[Answer], None]


def check_writable(file: Path | None) -> None:
    """UsageError, before anything is computed, if a result cannot be written to `file`."""
    if file and (file.is_dir() or not file.parent.is_dir()):
        reason = "it is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise UsageError(f"cannot write {file}: {reason}")


@contextmanager
def csv_file(file: Path) -> Iterator[Write]:
    """RFC 4180 with the columns path, rank, class, probability; images that could not be read have no row.

    Text that a spreadsheet would take for a formula is made harmless: a path gets the prefix `./`, which names the same
    file, and a class name that is not a number gets an apostrophe. JSON has all names unchanged.
    """
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        row = csv.writer(stream).writerow
        row(["path", "rank", "class", "probability"])

        def write(answer: Answer) -> None:
            path = f"./{answer.path}" if answer.path.startswith(_FORMULA) else answer.path
            for rank, (name, probability) in enumerate(answer.predictions, start=1):
                row([path, rank, _harmless(name), f"{probability:.6g}"])

        yield write


@contextmanager
def json_file(file: Path) -> Iterator[Write]:
    """A list of {"path", "predictions": [{"class", "probability"}]}; with "error" if an image could not be read."""
    with file.open("w", encoding="utf-8") as stream:
        separator = "[\n"

        def write(answer: Answer) -> None:
            nonlocal separator
            predictions = [{"class": name, "probability": float(f"{p:.6g}")} for name, p in answer.predictions]
            error = {"error": answer.error} if answer.error else {}
            stream.write(separator + json.dumps({"path": answer.path, "predictions": predictions} | error))
            separator = ",\n"

        try:
            yield write
        finally:  # a complete list even if the command is stopped
            stream.write("[]\n" if separator == "[\n" else "\n]\n")


def text_of(answer: Answer) -> str:
    """One line if there is one prediction, else a block with a line for each; without control characters."""
    path = printable(answer.path)
    shown = [(printable(name), f"{100 * probability:6.2f} %") for name, probability in answer.predictions]
    if len(shown) == 1:
        return f"{path}  {shown[0][0]}  {shown[0][1].strip()}"
    width = max(len(name) for name, _ in shown)
    return "\n".join([path, *(f"  {name:<{width}}  {percent}" for name, percent in shown)])


def printable(text: str) -> str:
    """`text` with unprintable characters, line ends included, as escape sequences."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _harmless(name: str) -> str:
    with suppress(ValueError):
        float(name)
        return name
    return f"'{name}" if name.startswith(_FORMULA) else name
