"""The policy of decode.py, file by file: an exact image, or a BadImage with a reason."""

import os
import pickle
import resource
import time

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.support.images import bomb_png, encoded, photo
from vitcli.data.decode import BadImage, open_image
from vitcli.errors import DataError

JPEG = encoded(photo(200, 150), "JPEG", quality=90)
PNG = encoded(photo(200, 150), "PNG")

BROKEN = {
    "empty": (b"", "the file is empty"),
    "one byte": (b"\xff", "known format"),
    "JPEG header only": (JPEG[:20], ""),
    "JPEG cut in half": (JPEG[: len(JPEG) // 2], "truncated"),
    "PNG cut in half": (PNG[: len(PNG) // 2], ""),
    "PNG header only": (PNG[:33], ""),
    "PNG with a flipped bit": (PNG[:500] + bytes([PNG[500] ^ 1]) + PNG[501:], ""),
    "random bytes": (np.random.default_rng(0).bytes(5000), "known format"),
    "text": (b"not found\n", "known format"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "known format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "known format"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "known format"),
    "bomb": (bomb_png(14_000), "more pixels than max_image_pixels"),
    "bomb beyond 32 bits": (bomb_png(2_000_000), ""),
    "float TIFF": (encoded(Image.new("F", (4, 4)), "TIFF"), "floating point"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_file_is_a_bad_image_with_path_and_reason(write, kind):
    content, reason = BROKEN[kind]
    path = write("broken.jpg", content)
    with pytest.raises(BadImage) as caught:
        open_image(path)
    assert caught.value.path == str(path)
    assert caught.value.reason
    assert reason in caught.value.reason
    assert isinstance(caught.value, DataError)
    assert caught.value.exit_code == 3


def test_bomb_costs_neither_memory_nor_time(write):
    path = write("bomb.png", bomb_png(13_000))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(BadImage, match="13,000 x 13,000"):
        open_image(path, max_image_pixels=10**8)
    assert time.perf_counter() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB; decoded it were 507 MB


def test_pixel_limit_is_inclusive(write):
    path = write("a.png", photo(20, 10))
    assert open_image(path, max_image_pixels=200).size == (20, 10)
    with pytest.raises(BadImage):
        open_image(path, max_image_pixels=199)


@pytest.mark.parametrize("kind", ["fifo", "directory", "dangling link", "loop of links", "missing", "device"])
def test_what_is_no_file_is_refused_without_hanging(tmp_path, kind):
    path = tmp_path / "x.jpg"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "loop of links":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(BadImage):
        open_image(path)


def test_no_descriptor_is_left_open(write):
    paths = [write(f"{number}.png", content) for number, (content, _) in enumerate(BROKEN.values())]
    before = len(os.listdir("/proc/self/fd"))
    for path in paths:
        with pytest.raises(BadImage):
            open_image(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_bad_image_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(BadImage("a/b.jpg", "cut")))
    assert (error.path, error.reason, str(error)) == ("a/b.jpg", "cut", "error: cannot read the image 'a/b.jpg': cut")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "PPM", "GIF", "TIFF"])
def test_format_is_recognized_by_content(write, kind):
    content = encoded(photo(), kind)
    path = write("misnamed.gif" if kind != "GIF" else "misnamed.png", content)
    with Image.open(path) as expected:
        assert np.array_equal(np.asarray(open_image(path)), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb_as_pillow_converts_it(write, mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    path = write("image", encoded(photo().convert(mode), kind))
    with Image.open(path) as expected:
        assert expected.mode == mode
        assert np.array_equal(np.asarray(open_image(path)), np.asarray(expected.convert("RGB")))


def test_palette_with_transparency(write):
    path = write("p.png", encoded(photo().convert("P"), "PNG", transparency=3))
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(photo().convert("P").convert("RGB")))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("PPM", {})])
def test_sixteen_bits_are_scaled_not_saturated(write, kind, options):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = write("ramp", encoded(Image.fromarray(ramp), kind, **options))
    gray = np.asarray(open_image(path))[..., 0]
    assert np.array_equal(gray, ramp >> 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(write, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write("turned", encoded(photo(), kind, exif=exif))
    with Image.open(path) as stored:
        expected = ImageOps.exif_transpose(stored)
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(expected))
    assert open_image(path).size == ((48, 32) if orientation < 5 else (32, 48))


def test_damaged_exif_is_no_reason_to_reject(write):
    path = write("exif.jpg", encoded(photo(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))
    assert open_image(path).size == (48, 32)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(write, kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    path = write("moving", encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert open_image(path).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_sizes(write, size):
    assert open_image(write("thin.png", Image.new("RGB", size))).size == size


def test_names_that_are_not_text(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"\xff\xfe.png")
    with open(path, "wb") as file:
        file.write(encoded(photo(), "PNG"))
    assert open_image(os.fsdecode(path)).size == (48, 32)
