"""Data sets: what is found in folders, how classes are numbered, and what is said when something is missing."""

import gzip
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, ImageFolder

from tests.support.data_sets import files_below, write_hub_parquet, write_shards
from tests.support.images import encoded, photo
from vitcli import catalog
from vitcli.data.datasets import build_named, build_split, build_splits, limited
from vitcli.data.pack import Packing, pack
from vitcli.data.packed_names import PackedNames
from vitcli.data.source import ArrayImages, Source
from vitcli.errors import DataError, RecipeError, UsageError, VitcliError
from vitcli.recipe.load import load_recipe
from vitcli.recipe.schema import Dataset


def section(data_dir: Path | None = None, **keys) -> Dataset:
    return Dataset(data_dir=data_dir, **keys)


def refusal(*args, **keys) -> VitcliError:
    with pytest.raises((DataError, UsageError)) as caught:
        build_splits(section(*args, **keys))
    assert caught.value.help
    return caught.value


CATS_AND_DOGS = {"train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 2}


def test_a_folder_is_read_as_torchvision_reads_it(make_image_folder):
    data_dir = make_image_folder({"train/b": 3, "train/a": 2, "train/C": 1, "val/a": 1, "val/b": 2, "val/C": 1})
    splits = build_splits(section(data_dir))
    for split, images in (("train", splits.train), ("val", splits.val)):
        reference = ImageFolder(data_dir / split)
        assert images.class_names == splits.class_names == reference.classes
        assert images.targets.tolist() == reference.targets
        assert [str(data_dir / split / images.name(index)) for index in range(len(images))] == [
            path for path, _ in reference.imgs
        ]
        assert all(
            np.array_equal(np.asarray(images.load(index)), np.asarray(reference[index][0]))
            for index in range(len(images))
        )
        assert images.notes == []


def test_class_missing_in_val_does_not_shift_labels(make_image_folder):
    splits = build_splits(
        section(make_image_folder({"train/a": 2, "train/b": 2, "train/c": 2, "val/a": 1, "val/c": 1}))
    )
    assert splits.val.class_names == ["a", "b", "c"]
    assert splits.val.targets.tolist() == [0, 2]
    assert splits.val.notes == ["1 of 3 classes have no validation images: 'b'"]
    assert splits.val.class_counts() == {"a": 1, "b": 0, "c": 1}


def test_class_only_in_val_is_refused_with_a_table(make_image_folder):
    error = refusal(make_image_folder({"train/a": 2, "train/b": 3, "val/a": 1, "val/zebra": 4}))
    assert "1 of 2 validation classes" in error.message
    assert "'zebra'" in error.message
    assert [line.split() for line in error.message.splitlines()[1:]] == [
        ["class", "train", "val"],
        ["'zebra'", "-", "4"],
        ["'b'", "3", "0"],
    ]


def test_val_alone_is_numbered_by_the_checkpoints_classes(make_image_folder):
    data_dir = make_image_folder({"val/cat": 1, "val/ant": 2})
    assert build_split(section(data_dir), "val").class_names == ["ant", "cat"]
    val = build_named(section(data_dir), "val", ["dog", "cat", "ant"])
    assert val.targets.tolist() == [2, 2, 1]
    assert val.class_names == ["dog", "cat", "ant"]
    with pytest.raises(DataError, match="'ant'"):
        build_named(section(data_dir), "val", ["dog", "cat"])


def test_validation_is_found_by_both_names(make_image_folder):
    counts = {"train/a": 1, "validation/a": 2}
    data_dir = make_image_folder(counts)
    assert len(build_splits(section(data_dir)).val) == 2
    shutil.copytree(data_dir / "validation", data_dir / "val")
    os.remove(data_dir / "val/a/0.png")
    val = build_splits(section(data_dir)).val
    assert len(val) == 1
    assert "both" in val.notes[0]
    assert len(build_splits(section(data_dir, val_split="validation")).val) == 2


@pytest.mark.parametrize(
    ("counts", "message", "cure"),
    [
        ({"train/a": 1}, "no folder 'val' or 'validation'", "'train'"),
        ({"val/a": 1}, "no folder 'train'", "--train_split"),
        ({"cat": 2, "dog": 1}, "no folder 'train'", "look like class folders"),
        ({"train": 2, "val": 1}, "no class folders", "one folder per class"),
        ({"train/a": 0, "val/a": 1}, "no images in 1 class folder ('a')", "remove the empty folders"),
        ({"train/a": 1, "train/b": 0, "val/a": 1}, "no images in 1 class folder ('b')", "remove the empty folders"),
        ({"train/a": 1, "val/a": 0}, "no images in 1 class folder ('a')", "add images"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_wrong_layouts_say_what_is_there_and_what_to_do(make_image_folder, counts, message, cure):
    error = refusal(make_image_folder(counts))
    assert message in error.message
    assert cure in error.help


def test_data_dir_that_is_missing_or_a_file(tmp_path):
    assert isinstance(refusal(None), UsageError)
    assert "--data_dir" in refusal(None).help
    assert "does not exist" in refusal(tmp_path / "nowhere").message
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refusal(tmp_path / "file").message


def test_empty_class_folder_in_val_is_only_a_class_without_images(make_image_folder):
    data_dir = make_image_folder({**CATS_AND_DOGS, "train/eel": 1, "val/eel": 0})
    assert build_splits(section(data_dir)).val.class_counts()["eel"] == 0


def test_what_is_no_image_is_left_out_and_counted(make_image_folder):
    data_dir = make_image_folder(CATS_AND_DOGS)
    cat = data_dir / "train/cat"
    os.mkfifo(cat / "pipe.jpg")
    (cat / "gone.jpg").symlink_to("nowhere")
    (cat / "loop.jpg").symlink_to("loop.jpg")
    (cat / "photo.cr2").write_bytes(b"")
    (cat / "README").write_bytes(b"")
    (cat / "._000.png").write_bytes(b"")
    (cat / "folder.jpg").mkdir()
    photo().save(cat / "folder.jpg" / "inside.png")
    (cat / "deep/deeper").mkdir(parents=True)
    photo().save(cat / "deep/deeper/x.JPEG")
    photo().save(cat / "deep" / "unnamed", format="PNG")
    (cat / "deep/up").symlink_to(cat)
    (cat / "other.png").symlink_to(data_dir / "train/dog/0.png")
    (data_dir / "train/list.txt").write_bytes(b"")
    train = build_splits(section(data_dir)).train
    names = [train.name(index) for index in np.flatnonzero(train.targets == 0)]
    assert names == [
        "cat/0.png",
        "cat/1.png",
        "cat/2.png",
        "cat/deep/deeper/x.JPEG",
        "cat/deep/unnamed",
        "cat/other.png",
    ]
    assert any("ignored 1 file next to the class folders" in note for note in train.notes)
    said = "\n".join(train.notes)
    for reason in (
        "1 .cr2",
        "2 dangling link",
        "1 not a regular file",
        "1 hidden",
        "1 without suffix",
        "1 folder named like an image",
    ):
        assert reason in said


def test_same_leaf_name_below_two_classes_stays_two_classes(make_image_folder):
    data_dir = make_image_folder({"train/cat/front": 1, "train/dog/front": 1, "val/cat/front": 1, "val/dog/front": 1})
    assert build_splits(section(data_dir)).class_names == ["cat", "dog"]


def test_names_of_all_kinds(tmp_path):
    names = [
        b"\xff\xfe",
        "çâté 🐈".encode(),
        b"[red]",
        b"<script>",
        b"=cmd()",
        b"new\nline",
        b"n" * 255,
        b"Cat",
        b"cat",
    ]
    for split in (b"train", b"val"):
        for name in names:
            folder = os.path.join(os.fsencode(tmp_path), split, name)
            os.makedirs(folder)
            with open(os.path.join(folder, b"\xfa.png"), "wb") as file:
                file.write(encoded(photo(), "PNG"))
    splits = build_splits(section(tmp_path))
    assert sorted(splits.class_names) == sorted(name.decode("utf-8", "backslashreplace") for name in names)
    assert splits.train.load(0).size == (48, 32)
    assert len(splits.train.fingerprint()["sha256"]) == 64


def test_one_class_and_one_image(make_image_folder):
    splits = build_splits(section(make_image_folder({"train/only": 1, "val/only": 1})))
    assert len(splits.train) == 1
    assert "only one class" in splits.train.notes[0]


def test_subset_is_spread_evenly_and_keeps_classes(make_image_folder):
    data_dir = make_image_folder({"train/a": 6, "train/b": 3, "val/a": 1, "val/b": 1})
    train = build_splits(section(data_dir, num_samples=3)).train
    assert [train.name(index) for index in range(3)] == ["a/0.png", "a/3.png", "b/0.png"]
    assert train.targets.tolist() == [0, 0, 1]
    assert train.class_names == ["a", "b"]
    assert len(build_splits(section(data_dir, num_samples=100)).train) == 9
    digits = build_splits(section(dataset="digits", num_samples=300)).train
    whole = build_splits(section(dataset="digits")).train
    assert len(digits) == 300
    assert np.array_equal(np.asarray(digits.load(299)), np.asarray(whole.load(299 * 1442 // 300)))


def of_class(images: Source) -> dict[str, set[str]]:
    """class -> names of its images"""
    names = [(images.class_names[images.target(index)], images.name(index)) for index in range(len(images))]
    return {of: {name for other, name in names if other == of} for of in images.class_names}


def test_a_number_of_images_of_each_class(make_image_folder):
    data_dir = make_image_folder({"train/a": 9, "train/b": 40, "train/c": 2, "val/a": 1, "val/b": 1, "val/c": 1})
    whole = build_splits(section(data_dir)).train
    few, more = (build_splits(section(data_dir, num_samples_per_class=n), seed=3).train for n in (3, 6))
    assert few.class_counts() == {"a": 3, "b": 3, "c": 2}
    assert few.notes == ["1 of 3 classes have fewer than 3 images; all of these are used"]
    assert all(few_of < whole_of or name == "c" for (name, few_of), whole_of in pairs(of_class(few), of_class(whole)))
    assert all(few_of <= more_of for (_, few_of), more_of in pairs(of_class(few), of_class(more))), "nested"
    again, other = (build_splits(section(data_dir, num_samples_per_class=3), seed=seed).train for seed in (3, 4))
    assert of_class(again) == of_class(few) != of_class(other)
    prints = [images.fingerprint()["contents_sha256"] for images in (few, again, other)]
    assert prints[0] == prints[1] != prints[2]
    (data_dir / "train/b" / sorted(of_class(whole)["b"] - of_class(more)["b"])[0][2:]).unlink()
    assert of_class(build_splits(section(data_dir, num_samples_per_class=3), seed=3).train) == of_class(few)


def pairs(some: dict, others: dict) -> Iterator[tuple]:
    return zip(some.items(), others.values(), strict=True)


@pytest.mark.parametrize(("ratio", "counts"), [(0.01, (1, 1, 2)), (0.1, (1, 3, 20)), (1.0, (3, 30, 200))])
def test_a_share_of_the_images_of_each_class(ratio, counts):
    labels = np.repeat([0, 1, 2], [3, 30, 200])
    images = ArrayImages(np.zeros((233, 4, 4), np.uint8), labels, ["a", "b", "c"], "zeros")
    part = limited(images, section(num_samples_ratio=ratio), seed=0)
    assert tuple(part.class_counts().values()) == counts
    assert np.array_equal(part.rows, np.sort(part.rows))
    assert np.array_equal(part.targets, labels[part.rows])
    unlabeled = ArrayImages(np.zeros((233, 4, 4), np.uint8), None, None, "zeros")
    assert len(limited(unlabeled, section(num_samples_ratio=ratio), seed=0)) == round(ratio * 233)
    with pytest.raises(UsageError, match="no labels"):
        limited(unlabeled, section(num_samples_per_class=1), seed=0)


def test_chosen_images_are_uniform():
    """Chi-square over how often each of 20 images is among the 5 chosen, 800 seeds; 43.8 is the 0.1 % point for 19."""
    images = ArrayImages(np.zeros((20, 2, 2), np.uint8), np.zeros(20), ["a"], "zeros")
    chosen = [limited(images, section(num_samples_per_class=5), seed).rows for seed in range(800)]
    counts = np.bincount(np.concatenate(chosen), minlength=20)
    assert ((counts - 200) ** 2 / 200).sum() < 43.8


def test_only_one_way_to_choose_a_part():
    with pytest.raises(RecipeError) as caught:
        load_recipe(num_samples=5, num_samples_per_class=1, num_samples_ratio=0.5)
    assert len(caught.value.problems) == 2
    assert "give one of them" in str(caught.value)


UNLABELED = [
    ({"train": 3}, "train", ["0.png", "1.png", "2.png"]),
    ({"train": 1, "train/deep/deeper": 2}, "train", ["0.png", "deep/deeper/0.png", "deep/deeper/1.png"]),
    ({"": 2}, "", ["0.png", "1.png"]),
    ({"2023": 1, "2024/may": 1}, "", ["2023/0.png", "2024/may/0.png"]),
]


@pytest.mark.parametrize(("counts", "root", "names"), UNLABELED, ids=str)
def test_images_without_class_folders(make_image_folder, counts, root, names):
    data_dir = make_image_folder(counts)
    splits = build_splits(section(data_dir), needs_labels=False)
    train = splits.train
    assert [train.name(index) for index in range(len(train))] == names
    assert splits.val is splits.class_names is train.targets is train.target(0) is None
    expected = np.asarray(Image.open(data_dir / root / names[-1]))
    assert np.array_equal(np.asarray(train.load(len(train) - 1)), expected)
    assert f"{len(names)} images without labels" in train.notes[0]
    assert train.fingerprint()["class_counts"] == {}
    copy = pickle.loads(pickle.dumps(train.subset(1)))
    assert (len(copy), copy.name(0)) == (1, names[0])
    assert isinstance(refusal(data_dir), DataError), "a task that needs labels refuses it"


def test_class_folders_are_for_evaluation_where_labels_are_not_needed(make_image_folder):
    data_dir = make_image_folder(CATS_AND_DOGS)
    splits, with_labels = build_splits(section(data_dir), needs_labels=False), build_splits(section(data_dir))
    assert splits.class_names == ["cat", "dog"]
    assert splits.val.fingerprint() == with_labels.val.fingerprint()
    assert splits.train.fingerprint() == with_labels.train.fingerprint()
    assert splits.train.notes == []
    shutil.rmtree(data_dir / "val/cat")
    shutil.rmtree(data_dir / "val/dog")
    photo().save(data_dir / "val/x.png")
    splits = build_splits(section(data_dir), needs_labels=False)
    assert (len(splits.train), splits.val) == (5, None)
    assert "validation split is not used" in splits.train.notes[-1]
    shutil.rmtree(data_dir / "val")
    splits = build_splits(section(data_dir), needs_labels=False)
    assert (splits.class_names, splits.val) == (["cat", "dog"], None)
    assert "nothing to evaluate on" in splits.train.notes[-1]


def test_validation_images_are_never_trained_on_for_want_of_a_training_folder(make_image_folder):
    data_dir = make_image_folder({"training/a": 1, "val/a": 1})
    with pytest.raises(DataError, match="no folder 'train'"):
        build_splits(section(data_dir), needs_labels=False)


def test_a_folder_without_images_is_refused_with_or_without_labels(make_image_folder):
    data_dir = make_image_folder({"train": 0})
    (data_dir / "train/notes.txt").touch()
    with pytest.raises(DataError, match=r"no images in .*1 \.txt ignored"):
        build_splits(section(data_dir), needs_labels=False)


@pytest.mark.parametrize("change", ["nothing", "added", "removed", "renamed", "grown", "touched", "moved"])
def test_fingerprint_notices_every_change(make_image_folder, tmp_path, change):
    data_dir = make_image_folder(CATS_AND_DOGS)
    before = build_splits(section(data_dir)).train.fingerprint()
    victim = data_dir / "train/cat/0.png"
    if change == "added":
        shutil.copy2(victim, data_dir / "train/cat/new.png")
    elif change == "removed":
        victim.unlink()
    elif change == "renamed":
        victim.rename(victim.with_name("999.png"))
    elif change == "grown":
        victim.write_bytes(victim.read_bytes() + b"\0")
    elif change == "touched":
        os.utime(victim, ns=(1, 1))
    elif change == "moved":
        victim.rename(data_dir / "train/dog/999.png")
    after = build_splits(section(data_dir)).train.fingerprint()
    assert (after == before) is (change == "nothing")
    assert (after["contents_sha256"] == before["contents_sha256"]) is (change in ("nothing", "touched"))
    assert before["num_images"] == 5
    assert before["class_counts"] == {"cat": 3, "dog": 2}


def test_fingerprint_does_not_depend_on_where_the_data_is(make_image_folder, tmp_path):
    data_dir = make_image_folder(CATS_AND_DOGS)
    shutil.copytree(data_dir, tmp_path / "copy")
    assert (
        build_splits(section(data_dir)).train.fingerprint()
        == build_splits(section(tmp_path / "copy")).train.fingerprint()
    )


def test_sets_travel_to_worker_processes(make_image_folder):
    for images in (
        build_splits(section(make_image_folder(CATS_AND_DOGS))).train,
        build_splits(section(dataset="digits")).val,
    ):
        copy = pickle.loads(pickle.dumps(images))
        assert copy.name(1) == images.name(1)
        assert np.array_equal(np.asarray(copy.load(1)), np.asarray(images.load(1)))


def test_packed_names():
    names = ["", "a", "çé/🐈", os.fsdecode(b"\xff"), "b" * 1000]
    packed = PackedNames(names)
    assert [packed[index] for index in range(len(names))] == names


def test_digits_are_scikit_learns():
    reference, splits = load_digits(), build_splits(section(dataset="digits"))
    assert (len(splits.train), len(splits.val)) == (1442, 355)
    stored = {
        (int(label), np.asarray(images.load(index)).tobytes())
        for images in (splits.train, splits.val)
        for index, label in enumerate(images.targets)
    }
    scaled = np.rint(reference.images * 255 / 16).astype(np.uint8)
    assert stored == {(int(label), pixels.tobytes()) for pixels, label in zip(scaled, reference.target, strict=True)}
    for digit in range(10):
        of_class = scaled[reference.target == digit]
        held_out = [np.asarray(splits.val.load(index)) for index in np.flatnonzero(splits.val.targets == digit)]
        assert np.array_equal(np.stack(held_out), of_class[4::5])
    assert splits.train.load(0).mode == "L"


def test_synthetic_images_are_fixed_and_can_be_told_apart():
    splits = build_splits(section(dataset="synthetic"))
    assert (len(splits.train), len(splits.val), len(splits.class_names)) == (1024, 256, 10)

    def mean_colors(images, count):
        pixels = np.stack([np.asarray(images.load(index)).mean((0, 1)) for index in range(count)])
        return np.stack([pixels[images.targets[:count] == label].mean(0) for label in range(10)])

    train, val = mean_colors(splits.train, 100), mean_colors(splits.val, 50)
    distances = np.linalg.norm(train[:, None] - val[None], axis=-1)
    assert np.array_equal(distances.argmin(1), np.arange(10))
    assert not np.array_equal(np.asarray(splits.train.load(0)), np.asarray(splits.val.load(0)))
    again = build_splits(section(dataset="synthetic")).train
    assert np.array_equal(np.asarray(splits.train.load(77)), np.asarray(again.load(77)))


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4) for side in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_from_local_files(tmp_path, name, folder):
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("t10k", 10)):
        write_idx(tmp_path / folder / f"raw/{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / folder / f"raw/{part}-labels-idx1-ubyte", np.arange(count) % 10)
    splits = build_splits(section(tmp_path, dataset=name))
    assert (len(splits.train), len(splits.val)) == (20, 10)
    assert splits.train.targets.tolist() == [*range(10), *range(10)]
    assert splits.val.load(3).mode == "L"
    assert splits.val.load(3).size == (28, 28)
    assert len(splits.class_names) == 10


def test_mnist_from_its_own_files_in_one_folder(tmp_path):
    """Compressed or not, directly in data_dir; damaged ones are refused."""
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28)).astype(np.uint8)
    for part in ("train", "t10k"):
        for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", np.arange(10))):
            write_idx(tmp_path / f"{part}-{name}", array)
            if part == "t10k":
                (tmp_path / f"{part}-{name}.gz").write_bytes(gzip.compress((tmp_path / f"{part}-{name}").read_bytes()))
                (tmp_path / f"{part}-{name}").unlink()
    splits = build_splits(section(tmp_path, dataset="mnist"))
    for source in (splits.train, splits.val):
        assert np.array_equal(np.asarray(source.load(3)), images[3])
        assert source.targets.tolist() == [*range(10)]
    data = (tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes()
    for damaged in (data[:-20], b"x" * 100, gzip.compress(gzip.decompress(data)[:-1])):
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(damaged)
        assert "t10k-images-idx3-ubyte.gz" in refusal(tmp_path, dataset="mnist").message


def test_cifar_arrays_become_rgb_images(tmp_path, monkeypatch):
    def stored(self, root, train, download):
        self.data = (
            np.arange((4 if train else 2) * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(-1, 32, 32, 3)
        )
        self.targets, self.classes = [0, 1, 0, 1][: len(self.data)], ["airplane", "automobile"]

    monkeypatch.setattr(CIFAR10, "__init__", stored)
    splits = build_splits(section(tmp_path, dataset="cifar10"))
    assert splits.train.class_counts() == {"airplane": 2, "automobile": 2}
    assert splits.train.name(2) == "cifar10/train[2]"
    assert np.array_equal(np.asarray(splits.train.load(1)), np.arange(3072, 6144).astype(np.uint8).reshape(32, 32, 3))


def write_all(folder: Path, make_image_folder) -> None:
    """Files for every data set that needs some, a few images each."""
    make_image_folder(CATS_AND_DOGS)
    for split in ("train", "val"):
        images = sorted((folder / split).glob("*/*.png"))
        rows = [{"image": str(path.relative_to(folder)), "label": path.parent.name} for path in images]
        (folder / f"{split}.csv").write_text(
            "image,label\n" + "".join(f"{row['image']},{row['label']}\n" for row in rows)
        )
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
        with tarfile.open(folder / f"{split}.tar", "w") as archive:
            archive.add(folder / split, split)
        files = files_below(folder / split)
        write_shards(folder / "webdataset", split, files)
        write_hub_parquet(folder / "hf", split, files)
    for split in ("train", "val"):
        pack(build_split(section(folder), split), folder / "packed" / split, Packing())
    for name in ("MNIST", "FashionMNIST"):
        for part in ("train", "t10k"):
            write_idx(folder / name / f"raw/{part}-images-idx3-ubyte", np.zeros((4, 28, 28)))
            write_idx(folder / name / f"raw/{part}-labels-idx1-ubyte", np.arange(4))
    cifar = {"cifar10": ("cifar-10-batches-py", *CIFAR10_FILES), "cifar100": ("cifar-100-python", "train", "test")}
    for name, (below, *files) in cifar.items():
        (folder / below).mkdir()
        for file in files:
            stored = {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 3], "fine_labels": [0, 1, 2, 3]}
            (folder / below / file).write_bytes(pickle.dumps(stored))
        classes = [f"class{number}" for number in range(10 if name == "cifar10" else 100)]
        meta = {"label_names": classes, "fine_label_names": classes}
        (folder / below / ("batches.meta" if name == "cifar10" else "meta")).write_bytes(pickle.dumps(meta))


CIFAR10_FILES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


@pytest.mark.parametrize("name", catalog.SOURCES)
@pytest.mark.parametrize("split", ["train", "val"])
def test_every_declared_set_keeps_the_contract(name, split, tmp_path, make_image_folder, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    write_all(tmp_path / "data", make_image_folder)
    own = tmp_path / "data" / name
    images = build_split(section(own if own.is_dir() else tmp_path / "data", dataset=name), split)
    assert len({images.name(index) for index in range(len(images))}) == len(images) == len(images.targets) > 0
    assert all(images.load(index).mode in ("L", "RGB") for index in (0, len(images) - 1))
    assert {images.target(index) for index in range(len(images))} <= set(range(len(images.class_names)))
    assert json.loads(json.dumps(images.fingerprint())) == images.fingerprint()
    last = images.select(np.array([len(images) - 1]))
    assert (last.name(0), last.target(0)) == (images.name(len(images) - 1), images.target(len(images) - 1))
    assert last.load(0).tobytes() == images.load(len(images) - 1).tobytes()
    assert last.fingerprint() != images.fingerprint() == pickle.loads(pickle.dumps(images)).fingerprint()


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_torchvision_sets_that_are_not_there(tmp_path, name):
    error = refusal(tmp_path, dataset=name)
    assert name in error.message
    assert "--dataset_download True" in error.help
    assert str(tmp_path) in error.help
    assert isinstance(refusal(None, dataset=name), UsageError)


def test_unreadable_image_is_found_when_it_is_loaded(make_image_folder):
    data_dir = make_image_folder(CATS_AND_DOGS)
    (data_dir / "train/cat/1.png").write_bytes(b"")
    train = build_splits(section(data_dir)).train
    with pytest.raises(DataError, match=r"1\.png"):
        train.load(1)
    Image.new("RGB", (50, 50)).save(data_dir / "train/cat/1.png")
    with pytest.raises(DataError, match="max_image_pixels"):
        build_splits(section(data_dir, max_image_pixels=2000)).train.load(1)
