"""Images listed in tables of every kind, as people write them and as they get them wrong."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.images import photo
from vitcli.data.datasets import build_splits
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset

Rows = list[dict[str, Any]]

ROWS: Rows = [
    {"image_path": f"scans/{number}.png", "label": "healthy" if number % 3 else "ill, or so",
     "split": "validation" if number >= 9 else "train"}
    for number in range(12)
]  # fmt: skip


def write(path: Path, rows: Rows, delimiter: str = ",") -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "scans").mkdir()
    for number in range(12):
        photo(8, 8, number).save(tmp_path / "scans" / f"{number}.png")
    return tmp_path


def found(images) -> dict[str, str]:
    return {images.name(index): images.class_names[images.target(index)] for index in range(len(images))}


def expected(rows: Rows, split: str) -> dict[str, str]:
    return {row["image_path"]: row["label"] for row in rows if row["split"] == split}


KINDS = [("csv", "a.csv", ","), ("csv", "a.csv", ";"), ("csv", "a.tsv", "\t"), ("jsonl", "a.jsonl", ""),
         ("parquet", "a.parquet", "")]  # fmt: skip


@pytest.mark.parametrize(("dataset", "name", "delimiter"), KINDS)
def test_one_table_with_a_column_of_splits(root: Path, dataset: str, name: str, delimiter: str):
    splits = build_splits(Dataset(dataset=dataset, data_dir=write(root / name, ROWS, delimiter)))
    assert found(splits.train) == expected(ROWS, "train")
    assert found(splits.val) == expected(ROWS, "validation")
    assert splits.class_names == ["healthy", "ill, or so"]
    assert splits.train.load(0).tobytes() == photo(8, 8, int(Path(splits.train.name(0)).stem)).tobytes()


@pytest.mark.parametrize(("dataset", "suffix"), [("csv", ".csv"), ("csv", ".tsv"), ("jsonl", ".jsonl")])
def test_one_table_for_each_split(root: Path, dataset: str, suffix: str):
    for split, name in (("train", "train"), ("validation", "val")):
        rows = [{"file_name": row["image_path"], "class": row["label"]} for row in ROWS if row["split"] == split]
        write(root / (name + suffix), rows, "\t" if suffix == ".tsv" else ",")
    splits = build_splits(Dataset(dataset=dataset, data_dir=root))
    assert found(splits.train) == expected(ROWS, "train")
    assert found(splits.val) == expected(ROWS, "validation")


def test_held_out_with_groups(root: Path):
    rows = [{"path": row["image_path"], "label": row["label"], "group": number // 3} for number, row in enumerate(ROWS)]
    splits = build_splits(Dataset(dataset="csv", data_dir=write(root / "a.csv", rows), val_ratio=0.25))
    group = {row["path"]: row["group"] for row in rows}
    parts = [{group[name] for name in found(part)} for part in (splits.train, splits.val)]
    assert parts[1]
    assert not parts[0] & parts[1]
    assert {*found(splits.train)} | {*found(splits.val)} == {*group}
    assert "4 groups stay together" in splits.val.notes[0]


def test_numbers_are_names_and_absolute_paths_are_allowed(root: Path):
    rows = [{"image": str(root / row["image_path"]), "label": number % 2} for number, row in enumerate(ROWS)]
    for name in ("a.csv", "a.parquet"):
        dataset = Dataset(dataset=name[2:], data_dir=write(root / name, rows), val_fold="1/2")
        assert build_splits(dataset).class_names == ["0", "1"]


def test_without_labels(root: Path):
    rows = [{"image": row["image_path"], "split": "train"} for row in ROWS]
    table = write(root / "a.csv", rows)
    splits = build_splits(Dataset(dataset="csv", data_dir=table), needs_labels=False)
    assert (len(splits.train), splits.train.targets, splits.val) == (12, None, None)
    with pytest.raises(DataError, match=r"has no column label or class or .*, only 'image', 'split'"):
        build_splits(Dataset(dataset="csv", data_dir=table))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,label\nscans/0.png,a\nscans/0.png,b\n", r"a\.csv:3: the image 'scans/0\.png' is listed twice"),
        ("image,label\nscans/0.png,\n", r"a\.csv:2: no value in the column 'label'"),
        ("image,label\nscans/0.png,a,b\n", r"a\.csv:2: 3 fields, 2 columns"),
        ("image,label\nscans/0.png,a\nscans/99.png,b\n", r"1 of 2 images of .* do not exist: 'scans/99\.png'"),
        ("picture,label\nscans/0.png,a\n", r"has no column image_path or .*, only 'picture', 'label'"),
        ("image,label\n", "has no rows"),
        ("", "has no rows"),
        ("image,label\n\"scans/0.png,a\n", r"a\.csv:\d: 1 fields, 2 columns"),
        ("image,label\nscans/0.png,a\n", "has no column `split`"),
        ("image,label,split\nscans/0.png,a,train\n", "has no rows of the split 'val'"),
        (b"image,label\n\xff\xfe,a\n", "cannot be read"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(root: Path, text: str | bytes, said: str):
    (root / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=said):
        build_splits(Dataset(dataset="csv", data_dir=root / "a.csv"))


def test_lines_and_columns_that_are_no_rows(root: Path):
    for line, said in (
        ("[1]", r"a\.jsonl:1: not a JSON object"), ("{", "not a JSON object"), ("[" * 100_000, "not a JSON object"),
        ('{"image": "scans/0.png", "label": ["a", "b"]}', "several classes in the column 'label'"),
        ('{"image": "scans/0.png", "label": null}', "no value in the column 'label'"),
        ('{"image": 1.5, "label": "a"}', "no value in the column 'image'"),
    ):  # fmt: skip
        (root / "a.jsonl").write_text(line + "\n")
        with pytest.raises(DataError, match=said):
            build_splits(Dataset(dataset="jsonl", data_dir=root / "a.jsonl", val_ratio=0.5))
    (root / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        build_splits(Dataset(dataset="parquet", data_dir=root / "a.parquet", val_ratio=0.5))


def test_no_table(root: Path):
    with pytest.raises(UsageError, match="the data set 'csv' needs a table"):
        build_splits(Dataset(dataset="csv"))
    with pytest.raises(DataError, match="does not exist"):
        build_splits(Dataset(dataset="csv", data_dir=root / "absent.csv"))
    write(root / "b.tsv", ROWS, "\t")
    with pytest.raises(DataError, match="is not a folder") as error:
        build_splits(Dataset(data_dir=root / "b.tsv"))
    assert error.value.help == "a table is read with --dataset csv"
    with pytest.raises(DataError, match=r"there is no train\.csv or train\.tsv in"):
        build_splits(Dataset(dataset="csv", data_dir=root))
