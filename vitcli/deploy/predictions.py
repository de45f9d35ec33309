"""The results of `vitcli predict`: text for people, CSV for spreadsheets, JSON for programs; image by image."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitcli.data.spreadsheet import cell_of, is_formula
from vitcli.errors import printable


@dataclass(frozen=True)
class Answer:
    """The result for one image."""

    path: str
    predictions: list[tuple[str, float]]  #: class, probability; most probable first; empty: it has no class
    error: str | None = None  #: why the image could not be read
    picture: Image.Image | None = None  #: to be drawn on
    heat: np.ndarray | None = None  #: (H, W), how much each pixel that the network sees speaks for a class, 0..1
    explained: tuple[str, float] | None = None  #: that class and its probability


Write = Callable[[Answer], None]


@contextmanager
def csv_file(file: Path) -> Iterator[Write]:
    """RFC 4180 with the columns path, rank, class, probability; images that could not be read have no row.

    An image that has no class has one row, in which all but its path is empty.
    Text that a spreadsheet would take for a formula is made harmless: a path gets the prefix `./`, which names the same
    file, and a class name that is not a number gets an apostrophe. JSON has all names unchanged.
    """
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        row = csv.writer(stream).writerow
        row(["path", "rank", "class", "probability"])

        def write(answer: Answer) -> None:
            path = f"./{answer.path}" if is_formula(answer.path) else answer.path
            if not answer.predictions and not answer.error:
                row([path, "", "", ""])
            for rank, (name, probability) in enumerate(answer.predictions, start=1):
                row([path, rank, cell_of(name), f"{probability:.6g}"])

        yield write


@contextmanager
def json_file(file: Path) -> Iterator[Write]:
    """A list of {"path", "predictions": [{"class", "probability"}]}; with "error" if an image could not be read.

    An image that has no class has an empty list of predictions and no error.
    """
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
    """One line if there is one prediction or none, else a block with a line for each; without control characters."""
    path = printable(answer.path)
    if not answer.predictions:
        return f"{path}  none"
    shown = [(printable(name), f"{100 * probability:6.2f} %") for name, probability in answer.predictions]
    if len(shown) == 1:
        return f"{path}  {shown[0][0]}  {shown[0][1].strip()}"
    width = max(len(name) for name, _ in shown)
    return "\n".join([path, *(f"  {name:<{width}}  {percent}" for name, percent in shown)])
