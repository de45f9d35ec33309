"""Images listed in tables of every kind, as people write them and as they get them wrong."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.images import photo
from vitcli.data.datasets import build_split, build_splits
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
        ("image,label\nscans/0.png,a\nscans/0.png,b\n", r"a\.csv:3: the image 'scans/0\.png' has 2 labels: 'a', 'b'"),
        ("image,label\nscans/0.png,a;b\nscans/1.png,b\n", r"a\.csv:2: .* has 2 labels: 'a', 'b'"),
        ("image,label\nscans/1.png,a\nscans/0.png,\n", r"a\.csv:3: the image 'scans/0\.png' has no label"),
        ("image,label\nscans/0.png,\n", r"a\.csv: no image has a value in the column 'label'"),
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
        ('{"image": "scans/0.png", "label": {"a": 1}}', "a.jsonl:1: the column 'label' has something"),
        ('{"image": "scans/0.png", "label": ["a", null]}', "has something other than labels"),
        ('{"image": "scans/0.png", "label": null}', "no image has a value in the column 'label'"),
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
    splits = build_splits(Dataset(data_dir=root / "b.tsv"))
    assert found(splits.train) == expected(ROWS, "train")
    assert splits.train.notes == [f"{root / 'b.tsv'} is read with --dataset csv"]
    with pytest.raises(DataError, match=r"there is no train\.csv or train\.tsv in"):
        build_splits(Dataset(dataset="csv", data_dir=root))


#: of the images 0, 1, … in training, and of the rest in validation
SEVERAL = [["sea", "person"], [], ["sea"], ["dog", "sea", "person"], ["person"], ["sea"], [], ["dog"], ["sea", "dog"]]


def several(kind: str) -> Rows:
    """`SEVERAL` as the fields of a table."""
    form = {";": ";".join, ",": ", ".join, "json": json.dumps, "list": list}[kind]
    rows = [{"image_path": f"scans/{number}.png", "label": form(labels)} for number, labels in enumerate(SEVERAL)]
    return [row | {"split": "val" if number >= 7 else "train"} for number, row in enumerate(rows)]


def all_labels(images) -> dict[str, list[str]]:
    return {images.name(index): images.labels(index) for index in range(len(images))}


@pytest.mark.parametrize(
    ("name", "kind", "keys"),
    [
        ("a.csv", ";", {}), ("a.csv", ",", {"label_separator": ","}), ("a.csv", "json", {}), ("a.tsv", ";", {}),
        ("a.jsonl", "list", {}), ("a.jsonl", ";", {}), ("a.parquet", "list", {}),
    ],
)  # fmt: skip
def test_several_labels_of_an_image(root: Path, name: str, kind: str, keys: dict[str, str]):
    table = write(root / name, several(kind), "\t" if name == "a.tsv" else ",")
    dataset = {"a.tsv": "csv"}.get(name, name[2:])
    splits = build_splits(Dataset(dataset=dataset, data_dir=table, **keys), multi_label=True)
    assert splits.class_names == ["dog", "person", "sea"]
    for part, numbers in ((splits.train, range(7)), (splits.val, range(7, 9))):
        assert all_labels(part) == {f"scans/{number}.png": sorted(SEVERAL[number]) for number in numbers}
    assert splits.train.class_counts() == {"dog": 1, "person": 3, "sea": 4}
    assert splits.train.notes == ["7 train images: 1.14 labels on average, 2 have none"]
    with pytest.raises(DataError, match=r"the image 'scans/0\.png' has 2 labels: 'person', 'sea' \(4 images") as error:
        build_splits(Dataset(dataset=dataset, data_dir=table, **keys))
    assert "--task multilabel" in error.value.help


def test_one_row_for_each_label(root: Path):
    rows = [{"image": "scans/0.png", "tags": tag} for tag in ("b", "a", "b")] + [{"image": "scans/1.png", "tags": "a"}]
    source = build_split(Dataset(dataset="csv", data_dir=write(root / "a.csv", rows)), "train", multi_label=True)
    assert all_labels(source) == {"scans/0.png": ["a", "b"], "scans/1.png": ["a"]}
    assert "2 rows name an image again" in source.notes[0]


def test_without_a_separator_a_field_is_one_label(root: Path):
    rows = [{"image": f"scans/{number}.png", "label": "a;b"} for number in range(2)]
    table = write(root / "a.csv", rows)
    source = build_split(Dataset(dataset="csv", data_dir=table, label_separator=None), "train")
    assert source.class_names == ["a;b"]


@pytest.mark.parametrize("other", [",", "|"])
def test_another_separator_is_noticed(root: Path, other: str):
    labels = [f"sea{other}sky", f"sea{other}person", "sky"] * 4
    rows = [{"image": f"scans/{number}.png", "label": label} for number, label in enumerate(labels)]
    keys = {"dataset": "csv", "data_dir": write(root / "a.csv", rows), "val_ratio": 0.3}
    (note,) = [note for note in build_split(Dataset(**keys), "train").notes if "separates" in note]
    assert note.endswith(
        f"a.csv: 2 of 3 classes contain {other!r}; if it separates labels, give --label_separator '{other}'"
    )
    images = build_split(Dataset(**keys, label_separator=other), "train", multi_label=True)
    assert images.class_names == ["person", "sea", "sky"]
    assert not any("separates" in note for note in images.notes)


def test_one_label_each_is_multi_label_data_too(root: Path):
    """A validation split where by chance each image has one label, and data that is not meant for it at all."""
    rows = several(";")[:8]
    splits = build_splits(Dataset(dataset="csv", data_dir=write(root / "a.csv", rows)), multi_label=True)
    assert splits.val.targets.tolist() == [[True, False, False]]
    splits = build_splits(Dataset(dataset="csv", data_dir=write(root / "b.csv", ROWS)), multi_label=True)
    assert splits.train.labels(0) == [
        found(build_split(Dataset(dataset="csv", data_dir=root / "b.csv"), "train"))[splits.train.name(0)]
    ]
    assert "exactly one label each" in splits.train.notes[0]


def test_other_labels_are_another_data_set(root: Path):
    """The same files and as many images of each class, with the labels of two images exchanged."""
    rows = several(";")
    other = [*rows]
    other[2], other[4] = rows[2] | {"label": rows[4]["label"]}, rows[4] | {"label": rows[2]["label"]}
    first, second = (
        build_split(Dataset(dataset="csv", data_dir=write(root / name, some)), "train", multi_label=True).fingerprint()
        for name, some in (("a.csv", rows), ("b.csv", other))
    )
    assert first["class_counts"] == second["class_counts"]
    assert first["contents_sha256"] != second["contents_sha256"]
    assert first["sha256"] != second["sha256"]


def test_labels_that_a_task_does_not_need_are_left_out(root: Path):
    section = Dataset(dataset="csv", data_dir=write(root / "a.csv", several(";")))
    splits = build_splits(section, needs_labels=False)
    assert (splits.train.targets, splits.class_names, len(splits.val)) == (None, None, 2)
    assert "an image has several or none" in splits.train.notes[0]
    assert build_splits(section, needs_labels=False, multi_label=None).train.multi_label
