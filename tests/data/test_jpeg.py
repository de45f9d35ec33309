"""JPEG files in training: the pixels, sizes and orientations that Pillow gives, whole or reduced."""

import io
import random
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.support.images import encoded, photo
from vitcli.data.decode import BadImage, decode_image, lazy_image_in
from vitcli.data.jpeg import Jpeg, read_header
from vitcli.data.pixel_format import PixelFormat
from vitcli.data.pixels import Pixels, in_array
from vitcli.data.views import build_views
from vitcli.recipe.schema import Augmentation

PICTURE = photo(61, 43, 5)
KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "optimized": {"optimize": True},
    "restart markers": {"restart_marker_rows": 1},
    "JFIF and a comment": {"dpi": (72, 72), "comment": b"\\xff\\xc0 not a frame"},
    "ICC profile": {"icc_profile": bytes(range(256)) * 300},  # more than one segment
    "quality 10": {"quality": 10},
}


def lazily(data: bytes, **keys) -> Jpeg:
    image = lazy_image_in(data, "a.jpg", **keys)
    assert isinstance(image, Jpeg)
    return image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_pillows(kind, mode):
    data = encoded(PICTURE.convert(mode), "JPEG", **KINDS[kind])
    image, pillows = lazily(data), Image.open(io.BytesIO(data))
    assert (image.size, image.channels) == (pillows.size, len(mode))
    assert np.array_equal(np.asarray(image.picture()), np.asarray(pillows))
    assert image.picture().mode == mode


def with_orientation(value: int, order: str = "<", **keys) -> bytes:
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112], exif[0x010F] = value, "maker"
    return encoded(PICTURE, "JPEG", exif=exif, **keys)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("value", range(10))
def test_every_orientation_is_upright(value, order):
    data = with_orientation(value, order)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = lazily(data)
    assert image.size == upright.size
    assert np.array_equal(np.asarray(image.picture()), np.asarray(upright))
    assert read_header(data).orientation == (value if 1 <= value <= 8 else None)


def test_an_orientation_that_only_xmp_holds_is_found():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(PICTURE, "JPEG", xmp=xmp)
    assert read_header(data).orientation is None
    assert lazily(data).size == (43, 61)


def test_of_two_exif_segments_pillow_decides():
    first, second = (with_orientation(value) for value in (6, 3))
    segment = second[second.index(b"\xff\xe1") :][: 2 + int.from_bytes(second[second.index(b"\xff\xe1") + 2 :][:2])]
    place = first.index(b"\xff\xe1") + 2 + int.from_bytes(first[first.index(b"\xff\xe1") + 2 :][:2])
    data = first[:place] + segment + first[place:]
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(lazily(data).picture()), np.asarray(upright))


@pytest.mark.parametrize("value", range(1, 9))
def test_a_reduced_image_is_the_image(value):
    """Half the size by libjpeg is nearly half the size by Pillow, and the box lies at the same place."""
    picture = photo(160, 120, 3)
    exif = Image.Exif()
    exif[0x0112] = value
    image = lazily(encoded(picture, "JPEG", quality=95, exif=exif))
    width, height = image.size
    for factor in (1, 2, 4, 8):
        box = (8, 16, width, height)
        size = ((width - 8) // factor, (height - 16) // factor)
        reduced, inside = image.reduced(box, size)
        assert reduced.size == (-(-width // factor), -(-height // factor))
        assert inside == tuple(round(side / factor) for side in box)
        crop = np.asarray(reduced.crop(inside).resize(size, Image.Resampling.BICUBIC), dtype=float)
        whole = np.asarray(image.picture().crop(box).resize(size, Image.Resampling.BICUBIC), dtype=float)
        assert abs(crop - whole).mean() < (0.1 if factor == 1 else 4)


def test_scaled_decoding_never_enlarges_what_was_reduced():
    image = lazily(encoded(photo(200, 100), "JPEG"))
    for box, size, expected in [
        ((0, 0, 64, 64), (32, 32), (100, 50)),
        ((0, 0, 63, 64), (32, 32), (200, 100)),
        ((0, 0, 200, 100), (8, 8), (25, 13)),
        ((0, 0, 200, 60), (8, 8), (50, 25)),
    ]:
        reduced, inside = image.reduced(box, size)
        assert reduced.size == expected
        assert inside[2] - inside[0] >= size[0]
        assert inside[3] - inside[1] >= size[1]


def test_the_key_decode_decides():
    data = encoded(photo(300, 200), "JPEG")
    crops = {}
    for decode in ("exact", "scaled"):
        (view,) = build_views(Augmentation(image_resize=24, scale=(0.9, 1.0), decode=decode, hflip=0), 1)
        crops[decode] = np.asarray(view(lazily(data), random.Random(0)), dtype=float)
    assert 0 < abs(crops["exact"] - crops["scaled"]).mean() < 4
    from_pillow = build_views(Augmentation(image_resize=24, scale=(0.9, 1.0), hflip=0), 1)[0]
    assert np.array_equal(crops["exact"], from_pillow(Image.open(io.BytesIO(data)), random.Random(0)))


UNUSUAL = {
    "CMYK": encoded(PICTURE.convert("CMYK"), "JPEG"),
    "PNG": encoded(PICTURE, "PNG"),
    "no frame": encoded(PICTURE, "JPEG")[:100],
    "12 bits": encoded(PICTURE, "JPEG").replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
    "arithmetic coding": encoded(PICTURE, "JPEG").replace(b"\xff\xc0\x00\x11", b"\xff\xc9\x00\x11"),
    "no height": encoded(PICTURE, "JPEG").replace(struct.pack(">HH", 43, 61), struct.pack(">HH", 0, 61)),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_other_files_are_left_to_pillow(kind):
    assert read_header(UNUSUAL[kind]) is None

    def outcome(read) -> tuple:
        try:
            image = read(UNUSUAL[kind], "a.jpg")
            return image.mode, image.tobytes()
        except BadImage as error:
            return error.message, error.help

    assert outcome(lazy_image_in) == outcome(decode_image)


@pytest.mark.parametrize("cut", [2, 30, 300])
def test_a_truncated_file_is_a_bad_image_when_its_pixels_are_needed(cut):
    data = encoded(photo(100, 100), "JPEG")[:-cut]
    with pytest.raises(BadImage, match=r"a\.jpg.*truncated") as expected:
        decode_image(data, "a.jpg")
    with pytest.raises(BadImage) as caught:
        lazily(data).picture()
    assert caught.value.message == expected.value.message


def test_too_many_pixels_are_refused_by_the_header():
    with pytest.raises(BadImage, match="61 x 43 pixels are more than max_image_pixels 2,622"):
        lazily(encoded(PICTURE, "JPEG"), max_image_pixels=61 * 43 - 1)
    lazily(encoded(PICTURE, "JPEG"), max_image_pixels=61 * 43)


@pytest.mark.parametrize("size", [(30, 20), (100, 61), (61, 90), (7, 200)])
@pytest.mark.parametrize("resample", list(Image.Resampling), ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_resizing_is_pillows_but_for_rounding(size, resample, channels):
    values = np.random.default_rng(0).integers(0, 256, (43, 61, channels), dtype=np.uint8)
    ours = np.asarray(Pixels(values).resize(size, resample), dtype=int)
    bands = [
        Image.fromarray(np.ascontiguousarray(values[:, :, band])).resize(size, resample) for band in range(channels)
    ]
    difference = abs(ours - np.stack([np.asarray(band, dtype=int) for band in bands], axis=-1))
    assert difference.max() <= 2
    assert difference.mean() < 0.15


@pytest.mark.parametrize("method", list(Image.Transpose), ids=str)
def test_turning_is_pillows(method):
    assert np.array_equal(np.asarray(in_array(PICTURE).transpose(method)), np.asarray(PICTURE.transpose(method)))


def test_colors_that_training_wants():
    gray, color = (lazily(encoded(PICTURE.convert(mode), "JPEG")) for mode in ("L", "RGB"))
    for image in (gray, color, gray.pixels, color.pixels, gray.picture(), color.picture()):
        picture = image if isinstance(image, Image.Image) else image.picture()
        for channels, mode in ((1, "L"), (3, "RGB")):
            ready = PixelFormat(channels).ready_to_crop(image)
            pixels = ready.pixels if isinstance(ready, Jpeg) else ready
            assert np.array_equal(
                np.asarray(pixels.with_channels(channels).picture()), np.asarray(picture.convert(mode))
            )
