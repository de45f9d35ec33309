"""Data sets: what is found in folders, how classes are numbered, and what is said when something is missing."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, ImageFolder

from tests.support.images import encoded, photo
from vitcli.data.datasets import build_named, build_split, build_splits
from vitcli.data.sources.folder import PackedNames
from vitcli.errors import DataError, UsageError, VitcliError
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
    (cat / "photo.heic").write_bytes(b"")
    (cat / "README").write_bytes(b"")
    (cat / "._000.png").write_bytes(b"")
    (cat / "folder.jpg").mkdir()
    photo().save(cat / "folder.jpg" / "inside.png")
    (cat / "deep/deeper").mkdir(parents=True)
    photo().save(cat / "deep/deeper/x.JPEG")
    (cat / "deep/up").symlink_to(cat)
    (cat / "other.png").symlink_to(data_dir / "train/dog/0.png")
    (data_dir / "train/list.txt").write_bytes(b"")
    train = build_splits(section(data_dir)).train
    names = [train.name(index) for index in np.flatnonzero(train.targets == 0)]
    assert names == ["cat/0.png", "cat/1.png", "cat/2.png", "cat/deep/deeper/x.JPEG", "cat/other.png"]
    assert any("1 file beside the class folders" in note for note in train.notes)
    said = "\n".join(train.notes)
    for reason in (
        "1 .heic",
        "2 dangling link",
        "1 not a regular file",
        "1 hidden",
        "1 without extension",
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
    assert sorted(map(os.fsencode, splits.class_names)) == sorted(names)
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
        (int(label), np.asarray(images.load(index))[..., 0].tobytes())
        for images in (splits.train, splits.val)
        for index, label in enumerate(images.targets)
    }
    scaled = np.rint(reference.images * 255 / 16).astype(np.uint8)
    assert stored == {(int(label), pixels.tobytes()) for pixels, label in zip(scaled, reference.target, strict=True)}
    for digit in range(10):
        of_class = scaled[reference.target == digit]
        held_out = [np.asarray(splits.val.load(index))[..., 0] for index in np.flatnonzero(splits.val.targets == digit)]
        assert np.array_equal(np.stack(held_out), of_class[4::5])
    assert splits.train.load(0).mode == "RGB"


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
    assert splits.val.load(3).mode == "RGB"
    assert splits.val.load(3).size == (28, 28)
    assert len(splits.class_names) == 10


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
