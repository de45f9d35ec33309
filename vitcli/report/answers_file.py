"""The answer to each image as a table: .csv and .tsv for spreadsheets, .jsonl for programs, .parquet for many images.

All formats have the same columns. Of one class per image:
    path, class, predicted, correct, probability, class_probability, loss, predicted_2, probability_2, … up to 5
Of any number of classes:
    path, classes, predicted, correct, and for each class its probability, `probability.NAME`
`classes` and `predicted` are lists there, in .csv and .tsv as JSON. `correct` is 0 or 1 in .csv and .tsv. Of two
networks on the same images, the columns that depend on the network exist twice: `first.predicted`, `second.predicted`.

In .csv and .tsv, text that a spreadsheet would take for a formula is made harmless, as in `deploy/predictions.py`.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from vitcli.data.spreadsheet import cell_of, is_formula, text_of_cell
from vitcli.errors import DataError, UsageError
from vitcli.evaluators.answers import ImageAnswers, MultiLabelAnswers
from vitcli.weights.convert import atomic

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
#: of one class per image, the most probable classes that a row has
NUM_TOP = 5
#: rows that Parquet holds in memory
_ROWS_AT_A_TIME = 4096

Row: TypeAlias = dict[str, Any]
_Write = Callable[[Row], None]


@dataclass(frozen=True)
class AnswerRow:
    """What a file says about one image with one class."""

    path: str
    target: str
    predicted: str
    correct: bool
    probability: float  #: of the predicted class
    class_probability: float  #: of the true class
    loss: float


def check_answers_file(file: Path | None) -> None:
    """UsageError, before anything is computed, for an unknown suffix, or if pyarrow is needed and not there."""
    if file is None:
        return
    if file.suffix not in SUFFIXES:
        help = f"give a file name that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise UsageError(f"cannot write predictions to {file}", help=help)
    if file.suffix == ".parquet":
        _pyarrow()


def write_answers(file: Path, answers: ImageAnswers | MultiLabelAnswers) -> None:
    """One row for each image, in their order. DiskError, UsageError: the file cannot be written; it is as it was."""
    rows = _rows(answers) if isinstance(answers, ImageAnswers) else _multi_label_rows(answers)
    _write(file, rows)


def write_two_answers(file: Path, first: ImageAnswers, second: ImageAnswers) -> None:
    """As `write_answers`, for two networks on the same images."""
    fixed = ("path", "class")
    pairs = zip(_rows(first), _rows(second), strict=True)
    _write(
        file,
        (
            {name: one[name] for name in fixed}
            | {
                f"{which}.{name}": value
                for which, row in (("first", one), ("second", two))
                for name, value in row.items()
                if name not in fixed
            }
            for one, two in pairs
        ),
    )


def read_answers(file: Path) -> Iterator[AnswerRow]:
    """What `write_answers` wrote about images with one class each. DataError: it is no such file, or it is damaged."""
    try:
        for row in _read(file):
            yield AnswerRow(
                path=row["path"],
                target=row["class"],
                predicted=row["predicted"],
                correct=bool(int(row["correct"])),
                **{name: float(row[name]) for name in ("probability", "class_probability", "loss")},
            )
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from None
    except (KeyError, ValueError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        help = "write it again: vitcli validate RUN --predictions FILE"
        raise DataError(f"{file} is not a table of predictions: {reason}", help=help) from None


def _rows(answers: ImageAnswers) -> Iterator[Row]:
    names, top = answers.class_names, answers.top(NUM_TOP)
    for index, path in enumerate(answers.names):
        probabilities = answers.probabilities[index]
        row: Row = {
            "path": path,
            "class": names[answers.targets[index]],
            "predicted": names[answers.predicted[index]],
            "correct": bool(answers.correct[index]),
            "probability": float(answers.confidence[index]),
            "class_probability": float(answers.target_probability[index]),
            "loss": float(answers.losses[index]),
        }
        for rank, label in enumerate(top[index, 1:], start=2):
            row |= {f"predicted_{rank}": names[label], f"probability_{rank}": float(probabilities[label])}
        yield row


def _multi_label_rows(answers: MultiLabelAnswers) -> Iterator[Row]:
    names = answers.class_names
    for index, path in enumerate(answers.names):
        yield {
            "path": path,
            "classes": _chosen(names, answers.targets[index]),
            "predicted": _chosen(names, answers.predicted[index]),
            "correct": bool(answers.correct[index]),
            **{f"probability.{name}": float(p) for name, p in zip(names, answers.probabilities[index], strict=True)},
        }


def _chosen(names: Sequence[str], which: Iterable[bool]) -> list[str]:
    return [name for name, chosen in zip(names, which, strict=True) if chosen]


def _write(file: Path, rows: Iterator[Row]) -> None:
    first = next(rows)  # an evaluation without images is refused
    opened = {".jsonl": _jsonl_file, ".parquet": _parquet_file}.get(file.suffix, _text_file)
    with atomic(file) as draft, opened(draft, first) as write:
        for row in chain([first], rows):
            write(row)


@contextmanager
def _text_file(file: Path, first: Row) -> Iterator[_Write]:
    """RFC 4180, separated by commas or tabs."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t" if file.suffix == ".tsv" else ",")
        writer.writerow(first)

        def write(row: Row) -> None:
            writer.writerow([_path_cell(value) if name == "path" else _cell(value) for name, value in row.items()])

        yield write


def _cell(value: str | float | bool | list[str]) -> str | int:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return cell_of(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _path_cell(path: str) -> str:
    return f"./{path}" if is_formula(path) else path


@contextmanager
def _jsonl_file(file: Path, first: Row) -> Iterator[_Write]:
    with file.open("w", encoding="utf-8") as stream:

        def write(row: Row) -> None:
            short = {name: float(f"{value:.6g}") if type(value) is float else value for name, value in row.items()}
            stream.write(json.dumps(short, ensure_ascii=False) + "\n")

        yield write


@contextmanager
def _parquet_file(file: Path, first: Row) -> Iterator[_Write]:
    pa = _pyarrow()
    import pyarrow.parquet as pq

    types = {str: pa.string(), bool: pa.bool_(), float: pa.float32(), list: pa.list_(pa.string())}
    schema = pa.schema([(name, types[type(value)]) for name, value in first.items()])
    waiting: list[Row] = []
    with pq.ParquetWriter(file, schema) as writer:

        def write(row: Row | None) -> None:
            if row is not None:
                waiting.append(row)
            if len(waiting) >= _ROWS_AT_A_TIME or (row is None and waiting):
                writer.write_table(pa.Table.from_pylist(waiting, schema))
                waiting.clear()

        yield write
        write(None)


def _read(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix == ".parquet":
        pa = _pyarrow()
        import pyarrow.parquet as pq

        try:
            yield from pq.read_table(file).to_pylist()
        except pa.ArrowException as error:
            raise ValueError(str(error)) from None
        return
    with file.open(newline="", encoding="utf-8") as stream:
        if file.suffix == ".jsonl":
            yield from (json.loads(line) for line in stream)
            return
        for row in csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ",", restval=""):
            cells = {name: text_of_cell(cell) for name, cell in row.items() if name and name != "path"}
            path = row["path"]
            yield cells | {"path": path[2:] if path.startswith("./") and is_formula(path[2:]) else path}


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        help = "pip install 'vitcli[parquet]', or give a name that ends in .csv or .jsonl"
        raise UsageError("Parquet files need pyarrow, which is not installed", help=help) from None
    return pa
