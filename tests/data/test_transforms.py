"""Crops and colors, pixel for pixel those of timm and torchvision."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision import transforms as tv
from torchvision.transforms import functional as tvf

from tests.support.images import photo, picture, same
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.transforms import jitter_colors, random_crop_box, to_uint8_tensor, turn_hue
from vitcli.data.views import TrainTransform, build_views
from vitcli.recipe.schema import Augmentation

SIZES = [
    (64, 64),
    (48, 32),
    (33, 57),
    (200, 150),
    (151, 401),
    (1, 1),
    (1, 9),
    (15, 1),
    (224, 224),
    (256, 256),
    (300, 37),
]


def train_transform(aug: Augmentation, in_channels: int = 3) -> TrainTransform:
    return build_views(aug, 1, in_channels)[0]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("image_resize", "crop_pct"), [(64, 0.875), (32, 1.0), (57, 0.9), (64, 0.95)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_eval_is_timms_and_torchvisions_pixel_for_pixel(size, image_resize, crop_pct, interpolation):
    image = photo(*size)
    ours = build_eval_transform(
        Augmentation(image_resize=image_resize, crop_pct=crop_pct, interpolation=interpolation)
    )(image)
    timms = create_transform(image_resize, crop_pct=crop_pct, interpolation=interpolation, normalize=False)
    assert torch.equal(to_uint8_tensor(ours), timms(image))
    shorter = int(image_resize / crop_pct)
    torchvisions = tv.Compose([tv.Resize(shorter, tv.InterpolationMode(interpolation)), tv.CenterCrop(image_resize)])
    assert same(ours, torchvisions(image))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize(("image_resize", "crop_pct"), [((48, 80), 0.875), ((64, 24), 1.0), (57, 0.9)])
def test_other_shapes_and_crop_modes_are_timms(size, crop_mode, image_resize, crop_pct):
    image = photo(*size)
    aug = Augmentation(image_resize=image_resize, crop_pct=crop_pct, crop_mode=crop_mode, mean=(0.2, 0.5, 0.9))
    keys = {"crop_pct": crop_pct, "crop_mode": crop_mode, "mean": aug.mean, "interpolation": "bicubic"}
    timms = create_transform((3, *aug.height_and_width), **keys, normalize=False)
    assert torch.equal(to_uint8_tensor(build_eval_transform(aug)(image)), timms(image))


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (40, 4001)])
def test_eval_of_a_thin_image_needs_no_huge_picture_and_shows_its_middle(size):
    image = photo(*size)
    ours = build_eval_transform(Augmentation(image_resize=32))(image)
    timms = create_transform(32, interpolation="bicubic", normalize=False)(image)
    difference = (to_uint8_tensor(ours).int() - timms.int()).abs()
    assert ours.size == (32, 32)
    assert difference.float().mean() < 2


@pytest.mark.parametrize("size", [size for size in SIZES if size != (1, 1)], ids=str)  # theirs may be empty
@pytest.mark.parametrize(("interpolation", "side"), [("bicubic", 24), ("random", 24), ("bicubic", (16, 24))])
def test_train_crop_is_timms_but_for_rounding(size, interpolation, side):
    """Each of the two passes of a resize may round to the next level."""
    image = photo(*size)
    ours = train_transform(Augmentation(image_resize=side, interpolation=interpolation, hflip=0))
    timms = RandomResizedCropAndInterpolation(side, (0.08, 1.0), (3 / 4, 4 / 3), interpolation)
    for seed in range(20):
        random.seed(seed)
        crop, theirs = (np.asarray(made, dtype=int) for made in (ours(image, random.Random(seed)), timms(image)))
        assert abs(crop - theirs).max() <= 2
        assert abs(crop - theirs).mean() < 0.06


@pytest.mark.parametrize("size", [(64, 48), (300, 20), (20, 300), (1, 1), (2, 700)])
@pytest.mark.parametrize(
    ("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.9, 1.0), (1.0, 1.0)), ((0.5, 2.0), (0.5, 3.0))]
)
def test_crop_box_is_timms_and_stays_inside(size, scale, ratio):
    for seed in range(50):
        random.seed(seed)
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(Image.new("L", size), scale, ratio)
        box = random_crop_box(*size, scale, ratio, random.Random(seed))
        assert box == (left, top, left + width, top + height) or 0 in (width, height)  # theirs may be empty
        assert 0 <= box[0] < box[2] <= size[0]
        assert 0 <= box[1] < box[3] <= size[1]


def test_crop_area_and_position_are_spread_as_asked():
    boxes = [random_crop_box(1000, 1000, (0.25, 0.75), (0.8, 1.25), random.Random(seed)) for seed in range(2000)]
    areas = np.array([(right - left) * (bottom - top) for left, top, right, bottom in boxes]) / 1e6
    assert areas.min() > 0.249
    assert areas.max() < 0.751
    assert abs(areas.mean() - 0.5) < 0.015
    assert abs(np.mean([left + right for left, _, right, _ in boxes]) / 2000 - 0.5) < 0.01


@pytest.mark.parametrize(
    ("size", "mode", "side", "resized"),
    [
        ((8, 8), "RGB", 8, (8, 8)),
        ((30, 19), "L", 8, (12, 8)),
        ((20, 15), "RGB", (8, 10), (11, 8)),
        ((20, 12), "RGB", (10, 8), (17, 10)),
    ],
)
def test_padded_crop_is_torchvisions_at_every_place(size, mode, side, resized):
    """RandomCrop(padding=4, padding_mode="reflect"), whose offsets are drawn evenly."""
    image = photo(*size).convert(mode)
    aug = Augmentation(image_resize=side, train_crop="padded", interpolation="nearest", hflip=0)
    height, width = aug.height_and_width
    padded = tvf.pad(tvf.resize(image, resized[::-1], tv.InterpolationMode.NEAREST), [4], padding_mode="reflect")
    places = [(top, left) for top in range(padded.height - height + 1) for left in range(padded.width - width + 1)]
    expected = {tvf.crop(padded, top, left, height, width).tobytes(): (top, left) for top, left in places}
    transform = train_transform(aug, in_channels=3 if mode == "RGB" else 1)
    found = [expected[picture(transform(image, random.Random(seed))).tobytes()] for seed in range(2500)]
    assert len(expected) == len(places) == len(set(found))
    tops, lefts = np.array(found).T
    assert abs(tops.mean() - (padded.height - height) / 2) < 0.2
    assert abs(lefts.mean() - (padded.width - width) / 2) < 0.2


def test_flips_have_their_probability():
    image = photo(16, 16)
    whole = {"image_resize": 16, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    horizontal = train_transform(Augmentation(**whole, hflip=0.3))
    flipped = [not same(horizontal(image, random.Random(seed)), image) for seed in range(1000)]
    assert abs(np.mean(flipped) - 0.3) < 0.05
    assert same(train_transform(Augmentation(**whole, hflip=1.0))(image, random.Random(0)), tvf.hflip(image))
    assert same(train_transform(Augmentation(**whole, hflip=0.0, vflip=1.0))(image, random.Random(0)), tvf.vflip(image))
    assert same(train_transform(Augmentation(**whole, hflip=0.0))(image, random.Random(0)), image)


class Recorded(random.Random):
    """A generator that notes what was drawn."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.factors: list[float] = []
        self.order: list[int] = []

    def uniform(self, low: float, high: float) -> float:
        self.factors.append(super().uniform(low, high))
        return self.factors[-1]

    def shuffle(self, order: list[int]) -> None:
        super().shuffle(order)
        self.order = list(order)


@pytest.mark.parametrize("strengths", [(0.4, 0.4, 0.4), (0.8, 0.2, 1.5, 0.5)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_color_jitter_is_torchvisions_with_the_same_factors(strengths, mode):
    image = photo().convert(mode)
    adjust = (tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue)
    for seed in range(10):
        rng = Recorded(seed)
        ours, expected = jitter_colors(image, strengths, rng), image
        for which, factor in zip(rng.order, rng.factors, strict=True):
            low = -strengths[3] if which == 3 else max(0, 1 - strengths[which])
            assert low <= factor <= (strengths[3] if which == 3 else 1 + strengths[which])
            expected = adjust[which](expected, factor)
        assert same(ours, expected)


@pytest.mark.parametrize("turns", [-0.5, -0.3, 0.0, 0.1, 0.5])
def test_hue(turns):
    assert same(turn_hue(photo(), turns), tvf.adjust_hue(photo(), turns))


def test_color_jitter_is_off_with_a_policy_but_for_three_augment():
    image = Image.new("RGB", (16, 16), (120, 60, 30))  # a policy of no operations leaves one color alone
    plain = Augmentation(image_resize=16, color_jitter=0.9, auto_augment="rand-p0")
    assert same(train_transform(plain)(image, random.Random(1)), image)
    jittered = Augmentation(image_resize=16, color_jitter=0.9, auto_augment="rand-p0-t3a")
    assert not same(train_transform(jittered)(image, random.Random(1)), image)


@pytest.mark.parametrize("policy", [None, "rand-m9-mstd0.5-inc1", "autoaug", "3a", "trivialaugwide", "augmix-m5"])
def test_gray_images_all_the_way(policy):
    aug = Augmentation(image_resize=16, color_jitter=0.4, auto_augment=policy, mean=(0.5,), std=(0.5,))
    train = train_transform(aug, in_channels=1)
    shapes = {to_uint8_tensor(train(photo(), random.Random(seed))).shape for seed in range(30)}
    assert shapes == {(1, 16, 16)}
    assert build_eval_transform(aug, in_channels=1)(photo()).mode == "L"


def test_same_generator_same_image_and_different_ones_differ():
    transform = train_transform(
        Augmentation(image_resize=32, auto_augment="rand-m9-mstd0.5-inc1", interpolation="random")
    )
    first, second = ([to_uint8_tensor(transform(photo(), random.Random(seed))) for seed in range(8)] for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert not any(torch.equal(*pair) for pair in pairwise(first))


def test_tensor_has_torchvisions_layout():
    for image in (photo(7, 5), photo(7, 5).convert("L")):
        tensor = to_uint8_tensor(image)
        assert tensor.is_contiguous()
        assert torch.equal(tensor, tvf.pil_to_tensor(image))
