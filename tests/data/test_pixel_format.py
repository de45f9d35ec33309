"""From deep values to 8 bits, and to the channels of the network; the right values are written down or numpy's."""

import numpy as np
import pytest
from PIL import Image

from tests.support.images import photo, same
from vitcli.data.bands import Bands
from vitcli.data.decode import open_image
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.pixel_format import HIGH_BYTES, PixelFormat, UnfitImage, in_8_bits
from vitcli.data.source import Source
from vitcli.data.streams import stream
from vitcli.data.transforms import to_uint8_tensor
from vitcli.data.value_range import settled_range
from vitcli.data.views import build_views
from vitcli.recipe.schema import Augmentation

#: type, range -> values before and after
KNOWN = [
    (np.uint16, "auto", [0, 255, 256, 32768, 65535], [0, 0, 1, 128, 255]),
    (np.uint16, (0, 65535), [0, 255, 256, 4095], [0, 0, 1, 15]),
    (np.uint16, (0, 4095), [0, 15, 16, 2048, 4095, 60000], [0, 0, 1, 128, 255, 255]),
    (np.uint16, (0, 3), [0, 1, 2, 3], [0, 64, 128, 192]),
    (np.uint16, (1000, 1511), [0, 1000, 1001, 1002, 1511], [0, 0, 0, 1, 255]),
    (np.int32, (0, 255), [0, 1, 128, 255, -5, 300], [0, 1, 128, 255, 0, 255]),
    (np.int32, (-1024, 3071), [-2000, -1024, -1008, 0, 3071, 4000], [0, 0, 1, 64, 255, 255]),
    (np.float32, (0, 1), [0, 0.5, 1, 2, -1, np.nan, np.inf, -np.inf], [0, 128, 255, 255, 0, 0, 255, 0]),
    (np.float32, (-2, 2), [-2, 0, 1.999, 2], [0, 128, 255, 255]),
]


@pytest.mark.parametrize(("dtype", "pixel_range", "before", "after"), KNOWN)
def test_steps_by_hand(dtype, pixel_range, before, after):
    image = Image.fromarray(np.array([before], dtype=dtype))
    gray = PixelFormat(1, pixel_range)(image)
    assert gray.mode == "L"
    assert np.asarray(gray)[0].tolist() == after
    assert same(PixelFormat(3, pixel_range)(image), gray.convert("RGB"))
    six = PixelFormat(6, pixel_range)(Bands((image,) * 6))
    assert np.asarray(six)[0, :, 5].tolist() == after


def test_eight_bits_stay_as_they_are():
    for image in (photo(), photo().convert("L"), Bands(photo().split())):
        assert in_8_bits(image, (0, 4095)) is image


@pytest.mark.parametrize(
    ("values", "said", "example"),
    [
        (np.array([[0, 4013]], np.uint16), "16 bits per channel and values from 0 to 4013", "[0, 4095]; [0, 65535] if"),
        (np.array([[7, 255]], np.uint16), "values from 7 to 255", "[0, 255]; [0, 65535] if"),
        (np.array([[0, 255]], np.int32), "whole numbers of 32 bits and values from 0 to 255", "[0, 255]"),
        (np.array([[-1024, 3071]], np.int32), "values from -1024 to 3071", "[-1024, 4095]"),
        (np.array([[0.25, np.nan, 0.75]], np.float32), "floating-point numbers and values from 0.25", "[0, 0.75]"),
        (np.array([[np.nan]], np.float32), "values from 0 to 0", ""),
    ],
)
def test_an_unknown_range_is_refused_with_a_likely_one(values, said, example):
    with pytest.raises(UnfitImage) as caught:
        PixelFormat(1)(Image.fromarray(values))
    assert said in caught.value.message
    assert example in caught.value.help


def test_only_the_upper_half_of_deep_colors(write, monkeypatch):
    """Without the extra, Pillow keeps the upper 8 bits."""
    import imagecodecs

    monkeypatch.setattr("vitcli.data.decode.find_spec", lambda name: None)
    values = np.random.default_rng(0).integers(0, 4096, (8, 8, 3), dtype=np.uint16)
    dark = open_image(write("dark.png", imagecodecs.png_encode(values)))
    bright = open_image(write("bright.png", imagecodecs.png_encode(values * 16)))
    assert np.array_equal(np.asarray(PixelFormat(3)(bright)), values >> 4)
    assert np.array_equal(np.asarray(PixelFormat(3, (0, 65535))(dark)), values >> 8)
    for image, pixel_range in ((dark, "auto"), (dark, (0, 4095)), (bright, (0, 60000))):
        with pytest.raises(UnfitImage, match="only the upper 8 can be read"):
            PixelFormat(3, pixel_range)(image)


def test_channels():
    colors = [photo(seed=seed).split() for seed in (1, 2)]
    four, six = Bands((*colors[0], colors[1][0])), Bands((*colors[0], *colors[1]))
    assert same(PixelFormat(3)(four), photo(seed=1))
    assert same(PixelFormat(1)(four), photo(seed=1).convert("L"))
    assert same(PixelFormat(3)(Bands(colors[0][:2])), colors[0][0].convert("RGB"))
    assert PixelFormat(6)(six).bands == six.bands
    assert PixelFormat(4)(photo().convert("RGBA")).bands[3].getextrema() == (255, 255)
    for image, channels, found in ((photo(), 6, 3), (six, 3, 6), (six, 1, 6), (photo().convert("L"), 4, 1)):
        with pytest.raises(UnfitImage, match=rf"has {found} channels?, the network takes {channels}"):
            PixelFormat(channels)(image)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_each_band_is_seen_like_a_gray_image(crop_mode):
    bands = Bands(tuple(photo(60, 45, seed).convert("L") for seed in range(6)))
    aug = Augmentation(image_resize=(24, 32), crop_mode=crop_mode, mean=tuple(np.linspace(0, 1, 6)))
    found = build_eval_transform(aug, in_channels=6)(bands)
    for number, (band, mean) in enumerate(zip(bands.bands, aug.mean)):
        gray = build_eval_transform(aug.model_copy(update={"mean": (mean,)}), in_channels=1)(band)
        assert same(found.bands[number], gray)


@pytest.mark.parametrize("train_crop", ["random_resized", "padded"])
def test_each_band_is_augmented_like_a_gray_image(train_crop):
    bands = Bands(tuple(photo(60, 45, seed).convert("L") for seed in range(6)))
    aug = Augmentation(image_resize=24, train_crop=train_crop, vflip=0.5, blur_prob=0.5)
    (gray_view,), (view,) = build_views(aug, 1, in_channels=1), build_views(aug, 1, in_channels=6)
    for number in range(10):
        tensor = to_uint8_tensor(view(bands, stream("view", number)))
        assert tensor.shape == (6, 24, 24)
        grays = [to_uint8_tensor(gray_view(band, stream("view", number)))[0] for band in bands.bands]
        assert all(map(np.array_equal, tensor.numpy(), np.stack(grays)))


def test_colors_of_which_only_the_upper_bytes_were_read_are_not_cropped_unseen():
    image = Image.new("RGB", (4, 4), (9, 9, 9))
    image.info[HIGH_BYTES] = True
    with pytest.raises(UnfitImage, match="only the upper 8 can be read"):
        PixelFormat(3).ready_to_crop(image)


class Deep(Source):
    def __init__(self, arrays) -> None:
        super().__init__(len(arrays))
        self.arrays = arrays

    def _load(self, row):
        return Image.fromarray(self.arrays[row])


def test_the_range_of_a_set():
    dark, bright = np.full((2, 2), 900, np.uint16), np.full((2, 2), 40000, np.uint16)
    assert settled_range(Deep([np.zeros((2, 2), np.uint8)] * 5), 1, "auto") == "auto"
    assert settled_range(Deep([bright, *[dark] * 9]), 1, "auto") == (0, 65535)
    assert settled_range(Deep([dark] * 40), 1, (0, 1023)) == (0, 1023)
    with pytest.raises(UnfitImage, match=r"the images have 16 bits per channel and values from 900 to 900"):
        settled_range(Deep([dark] * 40), 1, "auto")
    with pytest.raises(UnfitImage, match="has 1 channel, the network takes 6"):
        settled_range(Deep([dark] * 40), 6, "auto")
