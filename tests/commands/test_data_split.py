"""`vitcli data split`: the new data set has the images of the split, all of them, and nothing is overwritten."""

import csv
import os
from pathlib import Path

import pytest

from tests.support.commands import run_here
from tests.support.data_sets import files_below, write_hub_parquet, write_zip
from tests.support.images import photo
from vitcli.data.datasets import build_splits
from vitcli.recipe.schema import Dataset


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Class folders: 20 and 10 images, two of each patient."""
    for name, count in (("ant", 20), ("bee", 10)):
        (tmp_path / "pool" / name / "deep").mkdir(parents=True)
        for number in range(count):
            folder = "deep" if number % 5 == 0 else "."
            photo(8, 8, number).save(tmp_path / "pool" / name / folder / f"p{number // 2}-{number}.png")
    return tmp_path / "pool"


def names(source) -> list[str]:
    return sorted(source.name(index) for index in range(len(source)))


def test_the_parts_are_those_of_a_training(pool: Path, tmp_path: Path, capsys):
    keys = {"val_ratio": 0.2, "split_seed": 3, "group_by": r"p\d+"}
    words = [word for name, value in keys.items() for word in (f"--{name}", value)]
    assert run_here("data", "split", pool, "-o", tmp_path / "new", *words) == 0
    assert "30 hard links" in capsys.readouterr().out
    new, expected = build_splits(Dataset(data_dir=tmp_path / "new")), build_splits(Dataset(data_dir=pool, **keys))
    assert names(new.train) == names(expected.train)
    assert names(new.val) == names(expected.val)
    for path in (tmp_path / "new").glob("*/*/**/*.png"):
        assert os.path.samefile(path, pool / Path(*path.relative_to(tmp_path / "new").parts[1:]))


def test_the_list_is_a_data_set_too(pool: Path, tmp_path: Path):
    assert run_here("data", "split", pool, "-o", tmp_path / "new", "--val_fold", "1/3", "--test_ratio", 0.2) == 0
    rows = [*csv.DictReader((tmp_path / "new/split.csv").read_text().splitlines())]
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert len({row["image"] for row in rows}) == len(rows) == 30
    for row in rows:
        assert row["image"].startswith(f"{row['split']}/{row['class']}/")
        assert (tmp_path / "new" / row["image"]).is_file()
    assert sum(row["split"] == "test" for row in rows) == 6
    assert sum(row["split"] == "val" for row in rows) == 8  # a third of the other 24
    splits = build_splits(Dataset(data_dir=tmp_path / "new/split.csv"))
    assert (len(splits.train), len(splits.val)) == (16, 8)


def test_shares_are_of_all_images(pool: Path, tmp_path: Path):
    assert run_here("data", "split", pool, "-o", tmp_path / "new", "--val_ratio", 0.2, "--test_ratio", 0.5) == 0
    counts = {part: len([*(tmp_path / "new" / part).rglob("*.png")]) for part in ("train", "val", "test")}
    assert counts == {"train": 9, "val": 6, "test": 15}


def test_tables_and_archives(pool: Path, tmp_path: Path):
    images = [*files_below(pool)]
    lines = [f"pool/{name},{'dark' if number % 2 else 'light'}\n" for number, name in enumerate(images)]
    (tmp_path / "a.csv").write_text("image,label\n" + "".join(lines))
    assert run_here("data", "split", tmp_path / "a.csv", "-o", tmp_path / "of_table", "--val_ratio", 0.2) == 0
    splits = build_splits(Dataset(data_dir=tmp_path / "of_table"))
    assert splits.train.class_counts() == {"dark": 12, "light": 12}
    write_zip(tmp_path / "a.zip", files_below(pool))
    assert run_here("data", "split", tmp_path / "a.zip", "-o", tmp_path / "of_zip", "--val_ratio", 0.2) == 0
    unpacked = {path.name: path.read_bytes() for path in (tmp_path / "of_zip").glob("*/*/**/*.png")}
    assert unpacked == {Path(name).name: data for name, data in files_below(pool).items()}
    write_hub_parquet(tmp_path / "hub", "all", files_below(pool))
    assert (
        run_here("data", "split", tmp_path / "hub", "--dataset", "hf", "-o", tmp_path / "of_hub", "--val_ratio", 0.2)
        == 0
    )
    assert len([*(tmp_path / "of_hub").rglob("*.png")]) == 30


def test_copies_where_links_are_not_possible(pool: Path, tmp_path: Path, capsys, monkeypatch):
    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    assert run_here("data", "split", pool, "-o", tmp_path / "new", "--val_ratio", 0.2) == 0
    assert "30 copies" in capsys.readouterr().out


def test_nothing_is_overwritten_and_nothing_half_done_is_left(pool: Path, tmp_path: Path, capsys):
    before = files_below(tmp_path)
    (tmp_path / "there").mkdir()
    refused = [
        (("-o", tmp_path / "there", "--val_ratio", 0.2), "exists already"),
        (("-o", pool / "new", "--val_ratio", 0.2), "is inside the data set"),
        (("-o", tmp_path / "no" / "new", "--val_ratio", 0.2), "there is no folder"),
        (("-o", tmp_path / "new"), "the part for validation is not given"),
        (("-o", tmp_path / "new", "--val_ratio", 0.6, "--test_ratio", 0.4), "leave no images for training"),
    ]
    for words, said in refused:
        assert run_here("data", "split", pool, *words) == 2
        assert said in capsys.readouterr().err
    lines = [f"pool/{name},a/b\n" for name in before]
    (tmp_path / "a.csv").write_text("image,label\n" + "".join(line.replace("pool/pool", "pool") for line in lines))
    assert run_here("data", "split", tmp_path / "a.csv", "-o", tmp_path / "new", "--val_ratio", 0.2) == 3
    assert "'a/b' cannot be the name of a folder" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "pool", "there"]


def test_show_counts_class_folders_without_splits(pool: Path, capsys):
    assert run_here("data", "show", pool) == 0
    assert "2: ant 20, bee 10" in capsys.readouterr().out
