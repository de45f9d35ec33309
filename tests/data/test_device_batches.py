"""Images that are cropped and flipped on the device: as by the loader, which does it image by image."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.images import photo
from vitcli.data.datasets import build_split
from vitcli.data.device_batches import DeviceBatches, on_the_device
from vitcli.data.device_crops import resized_boxes
from vitcli.data.loader import build_train_loader
from vitcli.data.sampler import BatchPlan
from vitcli.data.source import ArrayImages
from vitcli.data.views import build_views
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Augmentation, Dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos() -> ArrayImages:
    pixels = np.stack([np.asarray(photo(40, 32, number)) for number in range(20)])
    return ArrayImages(pixels, np.arange(20) % 3, ["a", "b", "c"], "photos")


def both(source, aug: Augmentation, *, num_views: int = 1, start_step: int = 0, in_channels: int = 3):
    views = build_views(aug, num_views, in_channels=in_channels)
    plan = BatchPlan(len(source), 3, accumulation=2, seed=5, drop_remainder=False, repeats=2)
    options = {"seed": 7, "rank": 0, "start_step": start_step, "total_steps": 9}
    loaded = list(build_train_loader(source, views, plan, **options, num_workers=0))
    return loaded, list(DeviceBatches(on_the_device(source, views, CPU), views, plan, **options))


@pytest.mark.parametrize("num_views", [1, 2])
def test_padded_crops_and_flips_are_those_of_the_loader(photos, num_views: int):
    aug = Augmentation(image_resize=(32, 40), train_crop="padded", hflip=0.5, vflip=0.3, interpolation="random")
    loaded, made = both(photos, aug, num_views=num_views)
    assert len(loaded) == len(made) == 18
    for one, other in zip(loaded, made, strict=True):
        assert all(map(torch.equal, one.views, other.views))
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(one.indices, other.indices)
        assert (one.epoch, one.step, one.micro, one.block) == (other.epoch, other.step, other.micro, other.block)
    assert not torch.equal(made[0].views[-1], torch.from_numpy(photos.pixels[made[0].indices]).permute(0, 3, 1, 2))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "random"])
@pytest.mark.parametrize("size", [16, (24, 48), 64])
def test_resized_crops_differ_by_a_level_per_pass(photos, interpolation: str, size):
    loaded, made = both(photos, Augmentation(image_resize=size, scale=(0.1, 1), hflip=0.5, interpolation=interpolation))
    differences = torch.cat([(a.images.int() - b.images.int()).abs() for a, b in zip(loaded, made, strict=True)])
    assert differences.max() <= 2
    assert differences.float().mean() < 0.05


@pytest.mark.parametrize("filter", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_a_resize_is_pillows(filter):
    picture, box, size = photo(61, 47, 3), (5, 2, 58, 31), (20, 33)  # columns shrink, rows grow
    expected = np.asarray(picture.crop(box).resize((size[1], size[0]), filter)).astype(int)
    images = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    found = resized_boxes(images, torch.tensor([box]), torch.tensor([filter == Image.Resampling.BICUBIC]), size)
    assert np.abs(found[0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_any_start_gives_the_tail():
    digits = build_split(Dataset(dataset="digits", num_samples=20), "train").subset(20)
    aug = Augmentation(image_resize=8, train_crop="random_resized")
    whole, tail = both(digits, aug)[1], both(digits, aug, start_step=4)[1]
    assert all(torch.equal(one.images, other.images) for one, other in zip(whole[8:], tail, strict=True))


def test_gray_images_have_as_many_channels_as_the_network(photos):
    gray = ArrayImages(photos.pixels[..., 0], photos.targets, photos.class_names, "gray")
    aug = Augmentation(image_resize=(32, 40), train_crop="padded")
    for in_channels in (1, 3):
        loaded, made = both(gray, aug, in_channels=in_channels)
        assert made[0].images.shape[1] == in_channels
        assert torch.equal(loaded[0].images, made[0].images)


def test_what_cannot_be_done_is_said(photos, tmp_path):
    def refused(source=photos, **changes) -> str:
        with pytest.raises((DataError, UsageError)) as caught:
            on_the_device(source, build_views(Augmentation(image_resize=32, **changes), 1), CPU)
        assert "cache: ram" in caught.value.help
        return caught.value.message

    assert "does not change colors" in refused(auto_augment="rand-m9")
    assert "does not change colors" in refused(color_jitter=0.4)
    assert "interpolation: lanczos" in refused(interpolation="lanczos")
    assert "these are 32 x 40, not 32 x 32" in refused(train_crop="padded")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    photo(40, 32).save(tmp_path / "train/cat/a.png")
    photo(32, 40).save(tmp_path / "train/cat/b.png")
    folder = build_split(Dataset(data_dir=tmp_path), "train")
    assert "several: 40 x 32 and 32 x 40" in refused(folder)
    (tmp_path / "train/cat/b.png").write_bytes(b"no image")
    assert "1 images cannot be read" in refused(folder)
