"""Validation images held out of one set: stratified, repeatable, and never through a group."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.support.images import photo
from vitcli.data.datasets import build_split, build_splits
from vitcli.data.split_list import rows_of, write_split_list
from vitcli.errors import DataError, RecipeError, UsageError
from vitcli.recipe.load import load_recipe
from vitcli.recipe.schema import Dataset


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Class folders without splits: 20, 10, 3 images and one; each patient has images in two classes."""
    for name, count in (("ant", 20), ("bee", 10), ("cat", 3), ("dog", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            photo(8, 8).save(tmp_path / name / f"patient{number // 2}-{number}.png")
    return tmp_path


def names(source) -> list[str]:
    return [source.name(index) for index in range(len(source))]


def test_a_folder_of_class_folders(pool: Path):
    splits = build_splits(Dataset(data_dir=pool, val_ratio=0.2))
    train, val = names(splits.train), names(splits.val)
    assert sorted(train + val) == sorted(str(path.relative_to(pool)) for path in pool.glob("*/*.png"))
    counts = splits.val.class_counts()
    assert (counts["ant"], counts["bee"]) == (4, 2)
    assert counts["cat"] + counts["dog"] <= 2
    assert splits.train.class_names == splits.val.class_names == ["ant", "bee", "cat", "dog"]
    assert splits.val.notes[0] == f"val_ratio 0.2: {len(val)} of 34 images are held out for validation"
    for split, expected in (("train", train), ("val", val)):
        assert names(build_split(Dataset(data_dir=pool, val_ratio=0.2), split)) == expected
    assert names(build_splits(Dataset(data_dir=pool, val_ratio=0.2, split_seed=1)).val) != val


def test_a_larger_ratio_holds_out_more_of_each_class(pool: Path):
    smaller, larger = (set(names(build_splits(Dataset(data_dir=pool, val_ratio=ratio)).val)) for ratio in (0.2, 0.5))
    assert smaller < larger


def test_neighbors_by_name_are_not_held_out_together(pool: Path):
    """Frames of a video, for example, are next to each other."""
    val = {*names(build_splits(Dataset(data_dir=pool, val_ratio=0.5)).val)}
    ordered = [
        name in val for name in sorted(path.name for path in (pool / "ant").iterdir()) for name in [f"ant/{name}"]
    ]
    assert sum(ordered) == 10
    assert sum(first != second for first, second in pairwise(ordered)) > 4


@pytest.mark.parametrize("num_folds", [2, 3, 5, 7])
def test_folds_are_disjoint_and_complete_and_stratified(pool: Path, num_folds: int):
    all_splits = [build_splits(Dataset(data_dir=pool, val_fold=f"{k}/{num_folds}")) for k in range(1, num_folds + 1)]
    found = [name for splits in all_splits for name in names(splits.val)]
    assert len(found) == len(set(found)) == 34
    for splits in all_splits:
        assert not {*names(splits.train)} & {*names(splits.val)}
        assert len(splits.train) + len(splits.val) == 34
        for name, total in (("ant", 20), ("bee", 10), ("cat", 3), ("dog", 1)):
            assert abs(splits.val.class_counts()[name] - total / num_folds) < 1


def test_classes_of_one_image_are_spread_over_the_folds(tmp_path: Path):
    for number in range(60):
        (tmp_path / f"{number}").mkdir()
        photo(8, 8).save(tmp_path / f"{number}" / "0.png")
    sizes = [len(build_splits(Dataset(data_dir=tmp_path, val_fold=f"{k}/3")).val) for k in (1, 2, 3)]
    assert sum(sizes) == 60
    assert min(sizes) >= 12
    notes = build_splits(Dataset(data_dir=tmp_path, val_fold="1/3")).train.notes
    assert any(f"{sizes[0]} classes have no training images" in note for note in notes)
    assert any(f"{60 - sizes[0]} classes have no validation images" in note for note in notes)


@pytest.mark.parametrize("group_by", [r"patient\d+", r"patient(\d+)-", r"(?<=patient)\d+"])
def test_groups_stay_together(pool: Path, group_by: str):
    for keys in ({"val_ratio": 0.3}, {"val_fold": "2/3"}):
        splits = build_splits(Dataset(data_dir=pool, group_by=group_by, **keys))
        patients = [{re.search(r"patient\d+", name)[0] for name in names(part)} for part in (splits.train, splits.val)]
        assert patients[1]
        assert not patients[0] & patients[1]
        assert any("groups stay together" in note for note in splits.val.notes)
    with pytest.raises(UsageError, match=r"does not match 'ant/patient0-0.png'"):
        build_splits(Dataset(data_dir=pool, val_ratio=0.3, group_by=r"scan\d"))


def test_the_training_split_of_any_source_can_be_held_out(make_image_folder):
    digits = build_splits(Dataset(dataset="digits", val_fold="1/5"))
    whole = build_split(Dataset(dataset="digits"), "train")
    assert {*names(digits.val)} < {*names(whole)}
    assert abs(len(digits.val) - len(whole) / 5) < 10
    folder = make_image_folder({"train/a": 8, "train/b": 4, "val/a": 2, "val/b": 2})
    splits = build_splits(Dataset(data_dir=folder, val_ratio=0.25))
    assert {name[0] for name in names(splits.val)} == {"a", "b"}
    assert (len(splits.train), len(splits.val)) == (9, 3)
    assert splits.train.root == splits.val.root == folder / "train"


def test_without_labels(tmp_path: Path):
    for number in range(10):
        photo(8, 8).save(tmp_path / f"{number}.png")
    splits = build_splits(Dataset(data_dir=tmp_path, val_ratio=0.2), needs_labels=False)
    assert (len(splits.train), len(splits.val)) == (8, 2)


def test_what_cannot_be_split(tmp_path: Path, pool: Path):
    with pytest.raises(DataError, match="these look like class folders") as error:
        build_splits(Dataset(data_dir=pool))
    assert "--val_ratio 0.2" in error.value.help
    (tmp_path / "two" / "a").mkdir(parents=True)
    photo(8, 8).save(tmp_path / "two" / "a" / "0.png")
    with pytest.raises(DataError, match=r"val_ratio 0.5 leaves no images for one of the parts"):
        build_splits(Dataset(data_dir=tmp_path / "two", val_ratio=0.5))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"val_fold": "6/5"}, "`val_fold: 6/5` is not one of its parts"),
        ({"val_fold": "1/1"}, "is not one of its parts"),
        ({"val_fold": "0/5"}, "`val_fold` must be"), ({"val_fold": "a"}, "`val_fold` must be"),
        ({"val_ratio": 1.0}, "`val_ratio` must be"),
        ({"val_fold": "1/5", "val_ratio": 0.2}, "both choose the validation images"),
        ({"group_by": "(", "val_fold": "1/5"}, "`group_by` is not a regular expression"),
    ],
)  # fmt: skip
def test_mistakes(keys: dict, said: str):
    with pytest.raises(RecipeError, match=re.escape(said)):
        load_recipe(**keys)


def test_keys_without_effect():
    notes = load_recipe(split_seed=1, group_by="a").notes
    assert "`split_seed`, `group_by` have no effect without `val_ratio` or `val_fold`" in notes
    notes = load_recipe(val_split="test", val_fold="1/5").notes
    assert "`val_split` has no effect with `val_ratio` or `val_fold`" in notes
    assert np.allclose(load_recipe(val_fold="2/5").dataset.held_out, (0.2, 0.4))


def test_the_list_of_a_split_gives_the_same_split(pool: Path):
    splits = build_splits(Dataset(data_dir=pool, val_ratio=0.2))
    write_split_list(pool / "split.csv", rows_of({"train": splits.train, "val": splits.val}))
    listed = build_splits(Dataset(dataset="csv", data_dir=pool / "split.csv"))
    assert sorted(names(listed.train)) == sorted(names(splits.train))
    assert sorted(names(listed.val)) == sorted(names(splits.val))
    assert listed.train.class_counts() == splits.train.class_counts()


def test_the_list_of_a_multi_label_split_gives_the_same_labels(pool: Path):
    images = build_split(Dataset(data_dir=pool, val_ratio=0.2), "train")
    labels = [["a;b", 'c "d"'][: index % 3] for index in range(len(images))]
    write_split_list(pool / "split.csv", rows_of({"train": images.labeled(labels)}))
    listed = build_split(Dataset(dataset="csv", data_dir=pool / "split.csv"), "train", multi_label=True)
    found = {listed.name(index): listed.labels(index) for index in range(len(listed))}
    assert found == {images.name(index): names for index, names in enumerate(labels)}
