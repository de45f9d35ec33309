"""A flat validation folder with a list of classes, as ImageNet's is distributed."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.images import photo
from vitcli.data.datasets import build_named, build_splits
from vitcli.errors import DataError
from vitcli.recipe.schema import Dataset

TRAINING = ("n01440764", "n01443537", "n01751748")
#: of val_1.JPEG to val_3.JPEG
TRUTH = ["n01751748", "n01440764", "n01751748"]
LISTS = {
    "names": "val_1.JPEG n01751748\nval_2.JPEG n01440764\n\nval_3.JPEG n01751748\n",
    "numbers": "val_1.JPEG 2\nval_3.JPEG 2\nval_2.JPEG 0\n",
    "csv": "\ufefffile,label\nval_2.JPEG,n01440764\nval_1.JPEG, n01751748\nval_3.JPEG,n01751748\n",
    "kaggle": "ImageId,PredictionString\nval_1,n01751748 85 1 499 272 \n"
    "val_2,n01440764 1 2 3 4 n01440764 5 6 7 8\nval_3,n01751748 -1 0 2 3\n",
}  # fmt: skip


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for name in TRAINING:
        (tmp_path / "train" / name).mkdir(parents=True)
        photo().save(tmp_path / "train" / name / "0.png")
    (tmp_path / "val").mkdir()
    for number in (1, 2, 3):
        photo().save(tmp_path / "val" / f"val_{number}.JPEG")
    return tmp_path


def found(images) -> dict[str, str]:
    return {images.name(index): images.class_names[images.target(index)] for index in range(len(images))}


@pytest.mark.parametrize("kind", LISTS)
def test_each_image_has_its_class(data_dir: Path, kind: str):
    (data_dir / "list").write_text(LISTS[kind], encoding="utf-8")
    section = Dataset(data_dir=data_dir, val_labels=data_dir / "list")
    expected = {f"val_{number}.JPEG": name for number, name in enumerate(TRUTH, start=1)}
    val = build_splits(section).val
    assert found(val) == expected
    assert val.class_names == list(TRAINING)
    assert any("count the classes from 0: 'n01440764' is the first" in note for note in val.notes) == (
        kind == "numbers"
    )
    assert found(build_named(section, "val", ["n01751748", "n01440764"])) == expected


def test_numbers_follow_the_order_of_the_classes(tmp_path: Path):
    for name in ("1", "2", "10"):
        (tmp_path / "train" / f"c{name}").mkdir(parents=True)
        photo().save(tmp_path / "train" / f"c{name}" / "0.png")
    (tmp_path / "val").mkdir()
    photo().save(tmp_path / "val" / "a.png")
    (tmp_path / "list").write_text("a.png 1\n")
    (tmp_path / "names").write_text("c2\nc10\nc1\n")
    for keys, name in (({}, "c10"), ({"class_order": "natural"}, "c2"), ({"class_names": tmp_path / "names"}, "c10")):
        section = Dataset(data_dir=tmp_path, val_labels=tmp_path / "list", **keys)
        assert found(build_splits(section).val) == {"a.png": name}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("val_1.JPEG n01751748\nval_9.JPEG n01751748\n", "list:2: 'val_9.JPEG' is not in the folder"),
        ("val_1.JPEG 0\nval_1 1\n", "list:2: 'val_1' is named twice"),
        ("val_1.JPEG 3\n", "class 3 of 3 classes"),
        ("val_1.JPEG\n", "list:1: no class after 'val_1.JPEG'"),
        ("490\n361\n", "no class after '490'"),  # the ground truth of the development kit has other numbers
        ("", "no images of"),
        ("file label\n", "no images of"),
        (b"\xff\xfe\xff", "it is not a text file in UTF-8"),
    ],
)
def test_lists_that_are_refused(data_dir: Path, text: str | bytes, said: str):
    (data_dir / "list").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=said):
        build_splits(Dataset(data_dir=data_dir, val_labels=data_dir / "list"))


def test_images_that_are_not_listed_are_counted(data_dir: Path):
    (data_dir / "list").write_text("val_2.JPEG n01440764\n")
    val = build_splits(Dataset(data_dir=data_dir, val_labels=data_dir / "list")).val
    assert len(val) == 1
    assert any("2 images are not in" in note for note in val.notes)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        build_splits(Dataset(data_dir=data_dir, val_labels=data_dir / "absent"))


def test_a_flat_folder_without_a_list_names_the_key(data_dir: Path):
    with pytest.raises(DataError, match="no class folders") as error:
        build_splits(Dataset(data_dir=data_dir))
    assert "--val_labels FILE" in error.value.help
    assert np.array_equal(build_splits(Dataset(data_dir=data_dir), needs_labels=False).train.targets, [0, 1, 2])
