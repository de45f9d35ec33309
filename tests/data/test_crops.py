"""Many crops of one image: pixel for pixel torchvision's, and GoogLeNet's as written down once more."""

import pytest
import torch
from PIL import Image
from torchvision import transforms as tv
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from tests.support.images import photo, same
from vitcli.data.crops import Crops, build_crop_transform, read_scales
from vitcli.data.datasets import build_splits
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_eval_loader
from vitcli.errors import UsageError
from vitcli.recipe.schema import Augmentation, Dataset

SIZES = [(64, 64), (48, 32), (33, 57), (151, 401), (1, 1), (15, 1), (300, 37)]


def all_same(ours: list[Image.Image], theirs: list[Image.Image]) -> bool:
    return len(ours) == len(theirs) and all(map(same, ours, theirs))


def crops_of(image: Image.Image, crops: Crops, **keys) -> list[Image.Image]:
    channels = 1 if image.mode == "L" else 3
    return build_crop_transform(crops, Augmentation(**keys), in_channels=channels)(image)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("side", [32, 57])
def test_five_and_ten_are_torchvisions(size, mode, side):
    image, keys = photo(*size).convert(mode), {"image_resize": side, "interpolation": "bilinear", "crop_pct": 0.9}
    single = build_eval_transform(Augmentation(**keys), in_channels=1 if mode == "L" else 3)(image)
    five = tv.Compose([tv.Resize(int(1.5 * side)), tv.FiveCrop(side)])(image)
    assert all_same(crops_of(image, Crops("5"), **keys), [single, *five])
    ten = tv.Compose([tv.Resize(round(side * 256 / 224)), tv.TenCrop(side)])(image)
    assert all_same(crops_of(image, Crops("10"), **keys), [single, *ten])
    centers = [tv.Compose([tv.Resize(shorter), tv.CenterCrop(side)])(image) for shorter in (side, 2 * side)]
    assert all_same(crops_of(image, Crops("1", (1.0, 2.0)), **keys), [single, *centers])


def googlenet(image: Image.Image, side: int) -> list[Image.Image]:
    """Szegedy et al. 2014, section 7, sentence by sentence."""
    found = []
    for shorter in (256, 288, 320, 352):
        resized = tvf.resize(image, round(shorter * side / 224), InterpolationMode.BICUBIC)
        width, height = resized.size
        length = min(width, height)
        across, down = width - length, height - length
        for top, left in ((0, 0), (round(down / 2), round(across / 2)), (down, across)):
            square = tvf.crop(resized, top, left, length, length)
            found += tvf.five_crop(square, [side, side])
            found.append(tvf.resize(square, [side, side], InterpolationMode.BICUBIC))
    return found


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("side", [28, 224])
def test_googlenets_144(size, side):
    image = photo(*size)
    ours = crops_of(image, Crops("144"), image_resize=side)[1:]
    assert len(ours) == Crops("144").num_crops == 144
    views = googlenet(image, side)
    by_scale = [views[i : i + 18] for i in range(0, 72, 18)]
    assert all_same(ours, [crop for some in by_scale for crop in (*some, *map(tvf.hflip, some))])
    assert all(crop.size == (side, side) for crop in ours)


def test_a_thin_image_needs_no_huge_picture():
    assert {crop.size for crop in crops_of(photo(1, 5000), Crops("144"), image_resize=32)} == {(32, 32)}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_the_crops_of_each_image(workers):
    images, aug = build_splits(Dataset(dataset="digits", num_samples=8)).val.subset(5), Augmentation(image_resize=16)
    transform = build_crop_transform(Crops("5"), aug)
    batches = list(build_eval_loader(images, transform, batch_size=2, num_workers=workers))
    assert [tuple(batch.images.shape) for batch in batches] == [(n, 6, 3, 16, 16) for n in (2, 2, 1)]
    for index in range(5):
        crops = torch.stack([tvf.pil_to_tensor(crop) for crop in transform(images.load(index))])
        assert torch.equal(batches[index // 2].images[index % 2], crops)


@pytest.mark.parametrize(
    "wrong",
    [lambda: Crops("7"), lambda: Crops("5", ()), lambda: Crops("5", (0.9,)), lambda: Crops("5", (9.0,)),
     lambda: Crops("5", (float("nan"),)), lambda: Crops("5", average="max"), lambda: read_scales("1,two"),
     lambda: read_scales("")],
)  # fmt: skip
def test_mistakes_say_what_is_allowed(wrong):
    with pytest.raises(UsageError) as error:
        wrong()
    assert any(word in str(error.value.help) for word in ("1, 5, 10, 144", "1.0,1.5", "prob, logit"))


def test_an_input_that_is_not_square_is_refused():
    with pytest.raises(UsageError, match="the input is 24 x 32 px"):
        build_crop_transform(Crops("5"), Augmentation(image_resize=(24, 32)))
