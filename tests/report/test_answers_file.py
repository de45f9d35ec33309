"""The answers in a file: the same in every format, harmless in a spreadsheet, and read back as they were."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from vitcli.errors import DataError, UsageError
from vitcli.evaluators.answers import ImageAnswers, MultiLabelAnswers
from vitcli.report.answers_file import SUFFIXES, check_answers_file, read_answers, write_answers, write_two_answers

NAMES = ["=cmd()", "'+a", 'a "b", c']
PATHS = ["plain.png", "=HYPERLINK(1).png", 'with\ttab, and "quote".png', "-1"]  # the last looks like a number


@pytest.fixture
def answers() -> ImageAnswers:
    """Probabilities 0.7, 0.2, 0.1 in different orders; the last image is wrong."""
    logits = np.log(np.array([[7, 2, 1], [2, 7, 1], [1, 2, 7], [7, 1, 2]], dtype=np.float32) / 10)
    return ImageAnswers(PATHS, NAMES, np.array([0, 1, 2, 2]), logits)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_read_back(suffix: str, answers: ImageAnswers, tmp_path: Path):
    file = tmp_path / f"answers{suffix}"
    write_answers(file, answers)
    rows = list(read_answers(file))
    assert [row.path for row in rows] == PATHS
    assert [row.target for row in rows] == [NAMES[label] for label in (0, 1, 2, 2)]
    assert [row.predicted for row in rows] == [NAMES[label] for label in (0, 1, 2, 0)]
    assert [row.correct for row in rows] == [True, True, True, False]
    assert [row.probability for row in rows] == pytest.approx([0.7] * 4, rel=1e-5)
    assert [row.class_probability for row in rows] == pytest.approx([0.7, 0.7, 0.7, 0.2], rel=1e-5)
    assert [row.loss for row in rows] == pytest.approx(-np.log([0.7, 0.7, 0.7, 0.2]), rel=1e-5)


def test_cells(answers: ImageAnswers, tmp_path: Path):
    """No cell begins like a formula; numbers are numbers."""
    write_answers(tmp_path / "a.csv", answers)
    head, *rows = csv.reader((tmp_path / "a.csv").read_text().splitlines())
    assert head == [
        "path", "class", "predicted", "correct", "probability", "class_probability", "loss",
        "predicted_2", "probability_2", "predicted_3", "probability_3",
    ]  # fmt: skip
    assert rows[1][:4] == ["./=HYPERLINK(1).png", "''+a", "''+a", "1"]
    assert rows[0][7:] == ["''+a", "0.2", 'a "b", c', "0.1"]
    assert rows[3][2:6] == ["'=cmd()", "0", "0.7", "0.2"]


def test_multi_label(tmp_path: Path):
    logits = np.array([[0.0, 2.0], [-3.0, 4.0]], dtype=np.float32)
    targets = np.array([[True, True], [False, False]])
    answers = MultiLabelAnswers(["a", "b"], ["=x", "y"], targets, logits, np.array([0.6, 0.5]))
    write_answers(tmp_path / "a.jsonl", answers)
    first, second = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert first == {
        "path": "a", "classes": ["=x", "y"], "predicted": ["y"], "correct": False,
        "probability.=x": 0.5, "probability.y": pytest.approx(0.880797, abs=1e-6),
    }  # fmt: skip
    assert second["classes"] == []
    write_answers(tmp_path / "a.csv", answers)
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert json.loads(rows[0]["classes"]) == ["=x", "y"]
    assert rows[0]["probability.=x"] == "0.5"
    write_answers(tmp_path / "a.parquet", answers)
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "a.parquet").to_pylist()[0]["predicted"] == ["y"]


def test_two_networks(answers: ImageAnswers, tmp_path: Path):
    other = ImageAnswers(PATHS, NAMES, answers.targets, -answers.logits)
    write_two_answers(tmp_path / "two.jsonl", answers, other)
    row = json.loads((tmp_path / "two.jsonl").read_text().splitlines()[0])
    assert (row["path"], row["class"], row["first.predicted"], row["second.predicted"]) == (
        "plain.png", NAMES[0], NAMES[0], NAMES[2],
    )  # fmt: skip


def test_refused_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match=r"cannot write predictions to answers\.xlsx") as error:
        check_answers_file(Path("answers.xlsx"))
    assert ".tsv" in error.value.help
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    check_answers_file(Path("answers.csv"))
    with pytest.raises(UsageError, match="pyarrow"):
        check_answers_file(Path("answers.parquet"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "path,label\nx,y\n"),
        ("a.csv", "path,class,predicted,correct,probability,class_probability,loss\nx,a,a,1,much,0.5,1\n"),
        ("a.csv", "path,class,predicted,correct,probability,class_probability,loss\nx,a\n"),
        ("a.jsonl", "[1]\n"),
        ("a.jsonl", "{"),
        ("a.parquet", "PAR1"),
    ],
)
def test_files_that_are_something_else(name: str, content: str, tmp_path: Path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match="is not a table of predictions"):
        list(read_answers(tmp_path / name))


def test_a_file_that_cannot_be_written_stays_as_it_was(answers: ImageAnswers, tmp_path: Path):
    """A write that fails in the middle leaves the old file."""
    file = tmp_path / "a.csv"
    file.write_text("old")
    broken = ImageAnswers(PATHS, NAMES[:1], answers.targets, answers.logits)
    with pytest.raises(IndexError):
        write_answers(file, broken)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
