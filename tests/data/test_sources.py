"""The same images from a folder, archives, shards and the files of the Hugging Face hub: the same to the last bit."""

import pickle
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.support.data_sets import (
    Files,
    files_below,
    hugging_face_table,
    write_arrow,
    write_hub_parquet,
    write_shards,
    write_tar,
    write_zip,
)
from tests.support.images import photo
from vitcli.data.datasets import build_splits
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_eval_loader
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Augmentation, Dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 + 6 images of two classes, one of them below a further folder, and a file that is no image."""
    for split, count in (("train", 6), ("val", 3)):
        for name in ("cat", "dog é"):
            for number in range(count):
                path = tmp_path / "folder" / split / name / ("deep" if number == 1 else ".") / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                photo(20, 16, number + 10 * (name == "cat") + 100 * (split == "val")).save(path)
        (tmp_path / "folder" / split / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "folder"


def images_of(folder: Path) -> Files:
    return {name: data for name, data in files_below(folder).items() if name.endswith(".png")}


def one_archive(write: Callable[[Path, Files], Path], name: str, top: str = "") -> Callable[[Path, Path], Path]:
    return lambda folder, out: write(out / name, {top + path: data for path, data in files_below(folder).items()})


def two_archives(folder: Path, out: Path) -> Path:
    write_tar(out / "train.tar", {f"train/{path}": data for path, data in files_below(folder / "train").items()})
    write_zip(out / "val.zip", files_below(folder / "val"))
    return out


def tars_in_tars(folder: Path, out: Path) -> Path:
    """As ImageNet comes: a tar for each class, in a tar."""
    for split in ("train", "val"):
        classes = {}
        for name in ("cat", "dog é"):
            inner = write_tar(out / "inner.tar", images_of(folder / split / name))
            classes[f"{name}.tar"] = inner.read_bytes()
            inner.unlink()
        write_tar(out / f"{split}.tar", classes)
    return out


def shards(folder: Path, out: Path) -> Path:
    for split in ("train", "val"):
        write_shards(out, split, images_of(folder / split))
    return out


def hub_parquet(folder: Path, out: Path) -> Path:
    write_hub_parquet(out / "data", "train", images_of(folder / "train"))
    write_hub_parquet(out / "data", "validation", images_of(folder / "val"))
    return out


def saved_to_disk(folder: Path, out: Path) -> Path:
    write_arrow(out / "train", images_of(folder / "train"))
    write_arrow(out / "test", images_of(folder / "val"))
    return out


FORMS = {
    "zip": ("archive", one_archive(write_zip, "a.zip")),
    "stored zip with a top folder": (
        "archive",
        one_archive(lambda path, files: write_zip(path, files, zipfile.ZIP_STORED), "a.zip", "photos/"),
    ),
    "tar": ("archive", one_archive(write_tar, "a.tar", "./")),
    "ustar": ("archive", one_archive(lambda path, files: write_tar(path, files, tarfile.USTAR_FORMAT), "a.tar")),
    "pax with long names": (
        "archive",
        one_archive(lambda path, files: write_tar(path, files, tarfile.PAX_FORMAT), "a.tar", "p" * 200 + "/"),
    ),
    "gnu with long names": ("archive", one_archive(write_tar, "a.tar", "p" * 200 + "/")),
    "two archives": ("archive", two_archives),
    "tars in tars": ("archive", tars_in_tars),
    "webdataset": ("webdataset", shards),
    "parquet of the hub": ("hf", hub_parquet),
    "saved to disk": ("hf", saved_to_disk),
}


def tensors(source, num_workers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and their classes."""
    transform = build_eval_transform(Augmentation(image_resize=12))
    batches = [*build_eval_loader(source, transform, batch_size=4, num_workers=num_workers)]
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.targets for batch in batches])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_same_images_as_from_the_folder(form: str, num_workers: int, folder: Path, tmp_path: Path):
    dataset, write = FORMS[form]
    (tmp_path / "out").mkdir()
    splits = build_splits(Dataset(dataset=dataset, data_dir=write(folder, tmp_path / "out")))
    expected = build_splits(Dataset(data_dir=folder))
    assert splits.class_names == expected.class_names
    for ours, theirs in ((splits.train, expected.train), (splits.val, expected.val)):
        for mine, right in zip(tensors(ours, num_workers), tensors(theirs, 0), strict=True):
            assert torch.equal(mine, right)


@pytest.mark.parametrize("form", FORMS)
def test_a_source_is_pickled_and_read_by_threads(form: str, folder: Path, tmp_path: Path):
    dataset, write = FORMS[form]
    (tmp_path / "out").mkdir()
    train = build_splits(Dataset(dataset=dataset, data_dir=write(folder, tmp_path / "out"))).train
    copy = pickle.loads(pickle.dumps(train))
    indices = [*range(len(train))] * 20
    with ThreadPoolExecutor(4) as pool:
        loaded = [*pool.map(lambda index: copy.load(index).tobytes(), indices)]
    assert loaded == [train.load(index).tobytes() for index in indices]
    assert copy.fingerprint() == train.fingerprint() != train.select(np.arange(3)).fingerprint()
    assert len({train.name(index) for index in range(len(train))}) == len(train)


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_class_folders_in_an_archive_are_split_as_on_a_disk(write, folder: Path, tmp_path: Path):
    file = write(tmp_path / f"a.{write.__name__[-3:]}", files_below(folder / "train"))
    keys = ({"val_ratio": 0.3}, {"val_fold": "2/3"}, {"val_ratio": 0.3, "group_by": "\\d"})
    for key in keys:
        splits = build_splits(Dataset(data_dir=file, **key))
        expected = build_splits(Dataset(data_dir=folder / "train", **key))
        for ours, theirs in ((splits.train, expected.train), (splits.val, expected.val)):
            assert [ours.name(i) for i in range(len(ours))] == [theirs.name(i) for i in range(len(theirs))]
        assert f"{file} is read with --dataset archive" in splits.train.notes
        assert any("ignored 1 .txt" in note for note in splits.train.notes)
    with pytest.raises(DataError, match="no folder 'train'") as error:
        build_splits(Dataset(dataset="archive", data_dir=file))
    assert "--val_ratio" in error.value.help
    unlabeled = build_splits(Dataset(dataset="archive", data_dir=file), needs_labels=False).train
    assert (len(unlabeled), unlabeled.targets) == (12, None)


def test_an_archive_that_changes_is_not_read(folder: Path, tmp_path: Path):
    file = write_tar(tmp_path / "a.tar", files_below(folder))
    train = build_splits(Dataset(data_dir=file)).train
    write_tar(file, files_below(folder / "train"))
    with pytest.raises(DataError, match="was changed while it was in use"):
        train.load(0)


def test_shards_by_pattern_and_with_numbers(folder: Path, tmp_path: Path):
    images = [*images_of(folder / "train").values()]
    for shard in range(3):
        members = {}
        for number, data in enumerate(images[shard * 4 : shard * 4 + 4]):
            key = f"{shard}{number}"
            members |= {f"{key}.jpg": data, f"{key}.json": b'{"label": %d}' % (number * 5), f"{key}.pyd": b"\x80"}
        write_tar(tmp_path / f"s-{shard:03}.tar", members)
    keys = {"dataset": "webdataset", "val_ratio": 0.5}
    splits = build_splits(Dataset(data_dir=tmp_path / "s-{000..002}.tar", **keys))
    assert splits.class_names == ["0", "5", "10", "15"]  # by value
    assert len(splits.train) + len(splits.val) == 12
    assert any("ignored 12 pickle" in note for note in splits.train.notes)
    (tmp_path / "names.txt").write_text("".join(f"name{number}\n" for number in range(16)))
    named = build_splits(Dataset(data_dir=tmp_path / "s-*.tar", class_names=tmp_path / "names.txt", **keys))
    assert named.train.class_counts()["name5"] + named.val.class_counts()["name5"] == 3
    assert len(named.class_names) == 16
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="names 2 classes, and there is a number 15"):
        build_splits(Dataset(data_dir=tmp_path / "s-*.tar", class_names=tmp_path / "names.txt", **keys))
    with pytest.raises(DataError, match="1 of 4 files of data_dir do not exist"):
        build_splits(Dataset(data_dir=tmp_path / "s-{000..003}.tar", **keys))
    for address in ("pipe:curl x", "https://a/b.tar"):
        with pytest.raises(UsageError, match="is an address or a command"):
            build_splits(Dataset(data_dir=address, **keys))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"1.jpg": b"a", "2.jpg": b"b", "2.cls": b"0"}, r"1 of 2 images have no label: 'a\.tar/1\.jpg'"),
        ({"1.jpg": b"a", "1.txt": b"two\nlines"}, "has several lines, not a class"),
        ({"1.jpg": b"a", "1.cls": b" "}, "has no text, not a class"),
        ({"1.jpg": b"a", "1.cls": b"\xff"}, "is not cls in UTF-8"),
        ({"1.jpg": b"a", "1.json": b"{"}, "is not json in UTF-8"),
        ({"1.jpg": b"a", "1.json": b"[" * 100_000}, "is not json in UTF-8"),
        ({"1.jpg": b"a", "1.cls": b"0" * (1 << 21)}, "bytes, more than"),
        ({"1.pkl": b"a", "1.cls": b"0", ".2.jpg": b"b"}, r"no images in 1 shards .* 1 pickle"),
    ],
)
def test_shards_that_are_refused(members: Files, said: str, tmp_path: Path):
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=said):
        build_splits(Dataset(dataset="webdataset", data_dir=tmp_path, val_ratio=0.5))


def test_a_sample_of_several_images(tmp_path: Path):
    """The image of a sample is the one with the shortest suffix: not its mask."""
    members = {}
    for key in ("1.5mm", "2"):
        members |= {f"{key}/x.seg.png": b"mask", f"{key}/x.png": b"image", f"{key}/x.cls": b"0"}
    write_tar(tmp_path / "a.tar", members)
    splits = build_splits(Dataset(dataset="webdataset", data_dir=tmp_path, val_ratio=0.5))
    names = {part.name(0) for part in (splits.train, splits.val)}
    assert names == {"a.tar/1.5mm/x.png", "a.tar/2/x.png"}


def test_two_samples_of_one_key(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        (tmp_path / "x").write_text("0")
        for name in ("1.jpg", "1.cls", "2.jpg", "2.cls", "1.jpg", "1.cls"):
            archive.add(tmp_path / "x", name)
    with pytest.raises(DataError, match=r"1 images have the name of another one .* 'a\.tar/1\.jpg'"):
        build_splits(Dataset(dataset="webdataset", data_dir=tmp_path, val_ratio=0.5))


def test_tables_of_the_hub_that_are_refused(folder: Path, tmp_path: Path):
    table = hugging_face_table(images_of(folder / "train"))
    keys = {"dataset": "hf", "data_dir": tmp_path, "val_ratio": 0.5}
    for column, said in (
        (table.column_names.index("label"), "has no column of classes"),
        (0, "with the bytes of images"),
    ):
        pq.write_table(table.remove_column(column), tmp_path / "train.parquet")
        with pytest.raises(DataError, match=said):
            build_splits(Dataset(**keys))
    pq.write_table(table.set_column(1, "label", [[-1] * len(table)]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="has a class"):
        build_splits(Dataset(**keys))
    pq.write_table(table.set_column(1, "label", [[-1, *[0] * (len(table) - 1)]]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="has no class in 1 rows"):
        build_splits(Dataset(**keys))
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read"):
        build_splits(Dataset(**keys))
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DataError, match="holds images, not their paths") as error:
        build_splits(Dataset(data_dir=tmp_path / "train.parquet", val_ratio=0.5))
    assert "--dataset hf" in error.value.help


def test_a_table_in_a_folder_of_images(folder: Path):
    for split in ("train", "val"):
        rows = "".join(f"{name},{Path(name).parts[0]}\n" for name in images_of(folder / split))
        (folder / split / "metadata.csv").write_text("file_name,label\n" + rows)
    splits = build_splits(Dataset(dataset="hf", data_dir=folder))
    assert splits.train.class_counts() == {"cat": 6, "dog é": 6}
    assert len(splits.val) == 6
