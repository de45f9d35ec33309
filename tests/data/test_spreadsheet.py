"""Names that a spreadsheet would compute: written as text, read back as they were."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.images import photo
from vitcli.data.datasets import build_splits
from vitcli.data.split_list import rows_of, write_split_list
from vitcli.data.spreadsheet import cell_of, is_formula, text_of_cell
from vitcli.deploy.predictions import Answer, csv_file
from vitcli.recipe.schema import Dataset

FORMULAS = [
    "=cmd()", "+1+1", "-a", "@SUM(A1)", "\uff1dcmd()", "\uff0bA1", "\uff0dA1", "\uff20A1", "\ufe66A1", "\u2212A1",
    "\xa0=A1", "\u200b=A1", "\ufeff@A1", "\u3000=A1", " =A1", "\t=A1", "\r=A1", "\u202e=A1",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_begin_with_an_apostrophe(text: str):
    assert cell_of(text) == f"'{text}"


@pytest.mark.parametrize(
    "text", ["cat", "", "-1", "+1.5e3", "a=b", "n01440764", "\u00e9t\u00e9", "'tis", "3-4", "_x", "(=)"]
)
def test_other_text_stays(text: str):
    assert cell_of(text) == text_of_cell(text) == text


@given(st.text() | st.from_regex(r"'*[=+@\-\uff1d\xa0]+a?", fullmatch=True))
def test_every_text_is_read_back(text: str):
    assert text_of_cell(cell_of(text)) == text
    assert not is_formula(cell_of(text))


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    names = ["=cmd()", "\uff1dwide", "\xa0=space", "'=quoted", "a;b", "[x", "plain", "-1"]
    for number, name in enumerate(names):
        for image in range(4):
            file = tmp_path / "pool" / name / f"=+{image}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            photo(12, 10, 10 * number + image).save(file)
    return tmp_path / "pool"


def test_a_split_list_is_read_back_to_the_same_names(pool: Path):
    splits = build_splits(Dataset(data_dir=pool, val_ratio=0.25))
    write_split_list(pool / "split.csv", rows_of({"train": splits.train, "val": splits.val}))
    with (pool / "split.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for row in list(csv.reader(file))[1:] for cell in row]
    assert not [cell for cell in cells if is_formula(cell)]
    listed = build_splits(Dataset(dataset="csv", data_dir=pool / "split.csv"))
    for before, after in ((splits.train, listed.train), (splits.val, listed.val)):
        assert {after.name(i): after.labels(i) for i in range(len(after))} == {
            before.name(i): before.labels(i) for i in range(len(before))
        }


def test_predictions(tmp_path: Path):
    with csv_file(tmp_path / "out.csv") as write:
        for name in FORMULAS:
            write(Answer(name, [(name, 0.5)]))
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [(row[0], row[2]) for row in rows] == [(f"./{name}", f"'{name}") for name in FORMULAS]
