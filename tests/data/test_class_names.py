"""Class names: their order, their spelling, and a file that lists them."""

import os
from pathlib import Path

import pytest
from PIL import Image

from vitcli.data.class_names import in_natural_order, named_outputs, read_class_names
from vitcli.data.datasets import build_splits
from vitcli.errors import DataError
from vitcli.recipe.schema import Dataset


def folders(root: Path, *names: str | bytes) -> None:
    for split in ("train", "val"):
        for name in names:
            folder = os.path.join(os.fsencode(root), split.encode(), os.fsencode(name))
            os.makedirs(folder)
            Image.new("RGB", (8, 8)).save(os.path.join(os.fsdecode(folder), "0.png"))


def test_natural_order():
    assert in_natural_order(["10", "2", "1"]) == ["1", "2", "10"]
    assert in_natural_order(["b", "a10c", "a2c", "a", "12"]) == ["12", "a", "a2c", "a10c", "b"]


def test_the_order_of_folders(tmp_path: Path):
    folders(tmp_path, "1", "2", "10")
    assert build_splits(Dataset(data_dir=tmp_path)).class_names == ["1", "10", "2"]
    splits = build_splits(Dataset(data_dir=tmp_path, class_order="natural"))
    assert splits.class_names == ["1", "2", "10"]
    assert splits.train.targets.tolist() == splits.val.targets.tolist() == [0, 2, 1]


def test_a_file_names_the_classes(tmp_path: Path):
    folders(tmp_path, "ant", "bee")
    (tmp_path / "names.txt").write_text("bee\ncat\n\nant\n")
    splits = build_splits(Dataset(data_dir=tmp_path, class_names=tmp_path / "names.txt"))
    assert splits.class_names == ["bee", "cat", "ant"]
    assert splits.train.targets.tolist() == splits.val.targets.tolist() == [2, 0]
    assert [note for note in splits.train.notes if "1 of 3 classes" in note]
    (tmp_path / "names.txt").write_text("ant\n")
    with pytest.raises(DataError, match=r"1 of 2 classes of the data are not in .*: 'bee'"):
        build_splits(Dataset(data_dir=tmp_path, class_names=tmp_path / "names.txt"))


@pytest.mark.parametrize(("content", "message"), [(b"a\nb\na\n", "'a' twice"), (b"\n", "empty"), (b"\xff\n", "UTF-8")])
def test_files_that_are_no_lists_of_classes(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_class_names(tmp_path / "names.txt")
    with pytest.raises(DataError, match="No such file"):
        read_class_names(tmp_path / "nothing.txt")


def test_one_name_for_each_output(tmp_path: Path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    assert named_outputs(tmp_path / "names.txt", 2) == ["a", "b"]
    with pytest.raises(DataError, match="names 2 classes, the network has 3 outputs"):
        named_outputs(tmp_path / "names.txt", 3)


def test_two_spellings_are_one_class(tmp_path: Path):
    """macOS decomposes accents, most other systems do not."""
    folders(tmp_path, "bee")
    for split, name in (("train", "caf\u00e9"), ("val", "cafe\u0301")):
        (tmp_path / split / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / split / name / "0.png")
    splits = build_splits(Dataset(data_dir=tmp_path))
    assert splits.class_names == ["bee", "caf\u00e9"]
    assert splits.val.targets.tolist() == [0, 1]
    assert splits.val.load(1).size == (8, 8)
    (tmp_path / "train" / "cafe\u0301").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "cafe\u0301" / "0.png")
    with pytest.raises(DataError, match="two folders"):
        build_splits(Dataset(data_dir=tmp_path))


def test_a_folder_name_that_is_no_utf8(tmp_path: Path):
    folders(tmp_path, b"caf\xe9", "bee")
    splits = build_splits(Dataset(data_dir=tmp_path))
    assert splits.class_names == ["bee", "caf\\xe9"]
    assert splits.train.load(1).size == (8, 8)
    "".join(splits.class_names).encode()  # can be written to labels.txt
