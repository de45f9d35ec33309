"""Packed data: the images that were packed, in their order, whatever interrupts the packing, and damage is noticed."""

import itertools
import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.support.images import encoded, photo
from vitcli.data import pack as pack_module
from vitcli.data.datasets import build_split, build_splits
from vitcli.data.decode import BadImage
from vitcli.data.loader import build_train_loader
from vitcli.data.pack import Packing, pack
from vitcli.data.sampler import BatchPlan
from vitcli.data.source import Source
from vitcli.data.sources.packed import ENTRY, IMAGES, INDEX, PackedImages
from vitcli.data.survey import survey
from vitcli.data.views import build_views
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Augmentation, Dataset


@pytest.fixture
def zoo(tmp_path: Path) -> Source:
    """JPEG turned and not, gray, PNG with and without transparency, in two classes and folders below them."""
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "cat/a.jpg": encoded(photo(90, 60, 1), "JPEG"),
        "cat/turned.jpg": encoded(photo(90, 60, 2), "JPEG", exif=turned),
        "cat/deep/gray.jpg": encoded(photo(40, 30, 3).convert("L"), "JPEG"),
        "dog/b.png": encoded(photo(50, 70, 4), "PNG"),
        "dog/small.jpg": encoded(photo(20, 20, 5), "JPEG"),
        "dog/çé 🐈.webp": encoded(photo(30, 64, 6), "WEBP"),
    }
    for name, data in files.items():
        (tmp_path / "photos/train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos/train" / name).write_bytes(data)
    return build_split(Dataset(data_dir=tmp_path / "photos"), "train")


def packed(source: Source, folder: Path, **settings) -> PackedImages:
    pack(source, folder, Packing(**settings))
    return PackedImages(folder, max_image_pixels=10**6)


def batches(source: Source, workers: int = 0) -> list[torch.Tensor]:
    views = build_views(Augmentation(image_resize=16, auto_augment="rand-m9-mstd0.5-inc1"), 1)
    plan = BatchPlan(len(source), 3, seed=1)
    loader = build_train_loader(source, views, plan, seed=1, rank=0, start_step=0, total_steps=4, num_workers=workers)
    return [batch.images for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_files_train_as_they_did_in_their_folder(zoo, tmp_path, workers):
    ours = packed(zoo, tmp_path / "new")
    assert [ours.name(index) for index in range(len(ours))] == [zoo.name(index) for index in range(len(zoo))]
    assert ours.targets.tolist() == zoo.targets.tolist()
    assert ours.class_names == zoo.class_names
    assert all(ours.file(index) == zoo.file(index) for index in range(len(zoo)))
    assert all(map(torch.equal, batches(ours, workers), batches(zoo)))


def test_raw_pixels_train_like_the_images_they_were(zoo, tmp_path):
    ours = packed(zoo, tmp_path / "new", store="raw")
    assert all(np.array_equal(ours.load(index), zoo.load(index)) for index in range(len(zoo)))
    assert all(ours.file(index) is None for index in range(len(zoo)))
    assert all(map(torch.equal, batches(ours), batches(zoo)))


@pytest.mark.parametrize("store", ["files", "raw"])
def test_only_large_images_are_resized(zoo, tmp_path, store):
    result = pack(zoo, tmp_path / "new", Packing(store, shorter_side=30, quality=95))
    ours = PackedImages(tmp_path / "new", max_image_pixels=10**6)
    assert result.num_resized == 3
    assert (result.num_images, result.num_bytes) == (6, (tmp_path / "new" / IMAGES).stat().st_size)
    for index in range(len(zoo)):
        image, before = ours.load(index), zoo.load(index)
        ratio = min(1, 30 / min(before.size))
        size = (round(before.width * ratio), round(before.height * ratio))
        assert image.size == size
        expected = np.asarray(before.resize(size, Image.Resampling.BICUBIC), dtype=float)
        difference = abs(np.asarray(image.convert(before.mode), dtype=float) - expected).mean()
        assert difference == 0 if store == "raw" or ratio == 1 else 0 < difference < 8


def test_pixels_in_memory_are_packed_too(tmp_path):
    digits = build_splits(Dataset(dataset="digits", num_samples=40)).train
    ours = packed(digits, tmp_path / "new")
    assert all(map(torch.equal, batches(ours), batches(digits)))


def test_a_part_of_a_pack_is_a_set_of_its_own(zoo, tmp_path):
    ours = packed(zoo, tmp_path / "new")
    part = ours.select(np.array([4, 1]))
    assert [part.name(0), part.name(1)] == [zoo.name(4), zoo.name(1)]
    assert np.array_equal(part.load(1), zoo.load(1))
    assert part.fingerprint()["sha256"] != ours.select(np.array([3, 0])).fingerprint()["sha256"]
    again = pickle.loads(pickle.dumps(part))
    assert again.fingerprint() == part.fingerprint() != ours.fingerprint()
    assert np.array_equal(again.load(0), zoo.load(4))
    held_out = Dataset(dataset="packed", data_dir=tmp_path, train_split="new", val_ratio=0.3)
    assert len(build_split(held_out, "train")) + len(build_split(held_out, "val")) == 6


class Killed(BaseException):
    pass


@pytest.mark.parametrize("done", range(7))
@pytest.mark.parametrize("torn", [0, 7, 40, 4000])
def test_an_interrupted_packing_continues_to_the_same_bytes(zoo, tmp_path, monkeypatch, done, torn):
    """Killed after some images; then the last bytes of both files are lost, as after a power failure."""
    whole = tmp_path / "whole"
    pack(zoo, whole, Packing())
    counter = itertools.count()

    def stop(_: int) -> None:
        if next(counter) == done:
            raise Killed

    with pytest.raises(Killed):
        pack(zoo, tmp_path / "new", Packing(), advance=stop)
    assert not (tmp_path / "new" / INDEX).exists()
    with pytest.raises(DataError, match="is not complete") as caught:
        build_split(Dataset(dataset="packed", data_dir=tmp_path, train_split="new"), "train")
    assert "it continues" in caught.value.help
    for name in (IMAGES, pack_module.JOURNAL):
        with (tmp_path / "new" / name).open("r+b") as file:
            file.truncate(max(0, file.seek(0, 2) - torn))
    seen = []
    pack(zoo, tmp_path / "new", Packing(), advance=seen.append)
    assert sum(seen) == len(zoo)
    assert seen[0] == done if torn == 0 else seen[0] <= done
    for name in (IMAGES, INDEX):
        assert (tmp_path / "new" / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [IMAGES, INDEX]


def test_bytes_that_were_never_written_are_written_again(zoo, tmp_path):
    """The journal is ahead of the images: the end of images.bin is zeros."""
    pack(zoo, tmp_path / "whole", Packing())
    counter = itertools.count()
    with pytest.raises(Killed):
        pack(zoo, tmp_path / "new", Packing(), advance=lambda _: next(counter) < 4 or (_ for _ in ()).throw(Killed))
    images = tmp_path / "new" / IMAGES
    content = images.read_bytes()
    images.write_bytes(content[:-500] + bytes(500))
    pack(zoo, tmp_path / "new", Packing())
    assert images.read_bytes() == (tmp_path / "whole" / IMAGES).read_bytes()


def test_unreadable_images_are_all_named_and_can_be_left_out(zoo, tmp_path):
    for name, content in (("cat/a.jpg", b""), ("dog/b.png", b"text"), ("dog/small.jpg", zoo.file(5)[:-40])):
        (tmp_path / "photos/train" / name).write_bytes(content)
    with pytest.raises(DataError, match="3 of 6 images cannot be read") as caught:
        pack(zoo, tmp_path / "new", Packing())
    assert all(name in caught.value.message for name in ("a.jpg", "b.png", "small.jpg"))
    assert not (tmp_path / "new" / INDEX).exists()
    result = pack(zoo, tmp_path / "new", Packing(), skips=True)
    assert (result.num_images, len(result.bad)) == (3, 3)
    ours = PackedImages(tmp_path / "new", max_image_pixels=10**6)
    assert [ours.name(index) for index in range(3)] == ["cat/deep/gray.jpg", "cat/turned.jpg", "dog/çé 🐈.webp"]
    assert ours.targets.tolist() == [0, 0, 1]


def test_other_settings_and_other_data_do_not_continue(zoo, tmp_path):
    with pytest.raises(Killed):
        pack(zoo, tmp_path / "new", Packing(), advance=lambda _: (_ for _ in ()).throw(Killed))
    with pytest.raises(UsageError, match="other settings"):
        pack(zoo, tmp_path / "new", Packing(quality=50))
    with pytest.raises(UsageError, match="the data has changed"):
        pack(zoo.subset(3), tmp_path / "new", Packing())
    pack(zoo, tmp_path / "new", Packing())
    with pytest.raises(UsageError, match="holds packed data already"):
        pack(zoo, tmp_path / "new", Packing())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match="is not empty"):
        pack(zoo, tmp_path / "mine", Packing())


def test_more_than_8_bits_stay_files(tmp_path):
    folder = tmp_path / "deep/train/a"
    folder.mkdir(parents=True)
    deep = Image.fromarray(np.arange(40 * 50, dtype=np.uint16).reshape(40, 50) * 30)
    deep.save(folder / "deep.png")
    source = build_split(Dataset(data_dir=tmp_path / "deep"), "train")
    ours = packed(source, tmp_path / "new", shorter_side=20)
    assert np.array_equal(ours.load(0), deep)
    with pytest.raises(DataError, match="more than 8 bits per channel cannot be stored raw"):
        pack(source, tmp_path / "raw", Packing("raw"))


def test_damage_is_found(zoo, tmp_path):
    ours = packed(zoo, tmp_path / "new")
    images = tmp_path / "new" / IMAGES
    content = bytearray(images.read_bytes())
    place = int(ours.entries[2]["offset"]) + 300
    content[place] ^= 1
    images.write_bytes(content)
    found = survey(PackedImages(tmp_path / "new", max_image_pixels=10**6))
    assert [index for index, _ in found.unreadable] == [2]
    assert "checksum" in found.unreadable[0][1]
    images.write_bytes(content[:-1])
    with pytest.raises(DataError, match="names images beyond that"):
        PackedImages(tmp_path / "new", max_image_pixels=10**6)
    images.write_bytes(content)
    with pytest.raises(BadImage, match="more than max_image_pixels"):
        PackedImages(tmp_path / "new", max_image_pixels=500).load(0)


def test_no_index_is_trusted(zoo, tmp_path):
    """Whatever stands in the index: a DataError, and nothing outside the file is read."""
    pack(zoo, tmp_path / "new", Packing())
    index = tmp_path / "new" / INDEX
    good = index.read_bytes()
    arrays = load_file(index)
    rng = random.Random(0)
    for _ in range(300):
        content = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        index.write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
        try:
            images = PackedImages(tmp_path / "new", max_image_pixels=10**6)
            for number in range(min(len(images), 10)):
                try:
                    images.load(number)
                    images.name(number)
                except BadImage:
                    pass
        except DataError:
            pass
    entries = arrays["entries"].view(ENTRY).copy()
    entries[0]["offset"] = 2**64 - 8
    save_file(arrays | {"entries": entries.view(np.uint8)}, index, metadata_of(good))
    with pytest.raises(DataError, match="beyond that"):
        PackedImages(tmp_path / "new", max_image_pixels=10**6)
    save_file(arrays, index, of_version(metadata_of(good), 2))
    with pytest.raises(DataError, match="has version 2, not 1"):
        PackedImages(tmp_path / "new", max_image_pixels=10**6)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("targets", lambda values: values + 1),
        ("targets", lambda values: values - 1),
        ("targets", lambda values: values[:-1]),
        ("entries", lambda values: values[:-1]),
        ("entries", lambda values: values[: -ENTRY.itemsize]),
        ("name_ends", lambda values: values[::-1].copy()),
        ("name_ends", lambda values: values - 1),
        ("name_ends", lambda values: values[[1, 0, *range(2, len(values))]]),
        ("entries", lambda values: np.append(values, values[:1])),
    ],
)
def test_an_index_whose_arrays_do_not_belong_together_is_refused(zoo, tmp_path, name, change):
    pack(zoo, tmp_path / "new", Packing())
    index = tmp_path / "new" / INDEX
    arrays, metadata = load_file(index), metadata_of(index.read_bytes())
    save_file(arrays | {name: change(arrays[name])}, index, metadata)
    with pytest.raises(DataError, match="is not a valid index: it") as caught:
        PackedImages(tmp_path / "new", max_image_pixels=10**6)
    assert "pack the data again" in caught.value.help


def test_class_names_are_text(zoo, tmp_path):
    pack(zoo, tmp_path / "new", Packing())
    index = tmp_path / "new" / INDEX
    facts = json.loads(metadata_of(index.read_bytes())["packed"]) | {"class_names": [1, 2]}
    save_file(load_file(index), index, {"packed": json.dumps(facts)})
    with pytest.raises(DataError, match="its class names are not text"):
        PackedImages(tmp_path / "new", max_image_pixels=10**6)


def metadata_of(index: bytes) -> dict[str, str]:
    return json.loads(index[8 : 8 + int.from_bytes(index[:8], "little")])["__metadata__"]


def of_version(metadata: dict[str, str], version: int) -> dict[str, str]:
    return {"packed": json.dumps(json.loads(metadata["packed"]) | {"version": version})}


def test_groups_travel(zoo, tmp_path):
    zoo.groups = [f"patient {index // 2}" for index in range(6)]
    ours = packed(zoo, tmp_path / "new")
    assert [ours.group(index) for index in range(6)] == zoo.groups
