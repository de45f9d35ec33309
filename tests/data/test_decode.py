"""The policy of decode.py, file by file: an exact image, or a BadImage with a reason."""

import os
import pickle
import resource
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from tests.support.images import bomb_png, encoded, photo, same
from vitcli.data.decode import BadImage, open_image
from vitcli.data.pixel_format import HIGH_BYTES, PixelFormat
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
def test_every_mode_becomes_rgb_and_gray_as_pillow_converts_it(write, mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    path = write("image", encoded(photo().convert(mode), kind))
    with Image.open(path) as expected:
        assert expected.mode == mode
        assert same(PixelFormat(3)(open_image(path)), expected.convert("RGB"))
        assert same(PixelFormat(1)(open_image(path)), expected.convert("RGB").convert("L"))


def test_palette_with_transparency(write):
    path = write("p.png", encoded(photo().convert("P"), "PNG", transparency=3))
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(photo().convert("P").convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_kept(write, kind):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = open_image(write("ramp", encoded(Image.fromarray(ramp), kind)))
    assert found.mode == "I;16"
    assert np.array_equal(np.asarray(found), ramp)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", ">u2", "int16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4, 6])
def test_tiffs_have_the_values_of_tifffile(tmp_path, channels, dtype, orientation):
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((9, 7, channels) if channels else (9, 7)) * 1000).astype(dtype)
    path = tmp_path / "a.tif"
    kind = "rgb" if channels == 3 else "minisblack"
    tags = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(path, values, photometric=kind, planarconfig="contig" if channels > 1 else None, extratags=tags)
    found = np.asarray(open_image(path)).astype("float64")
    expected = values.reshape(9, 7) if channels == 1 else values
    expected = np.rot90(expected, k=-1) if orientation == 6 else expected
    assert np.array_equal(found.reshape(expected.shape), expected.astype("float32"))


def test_a_tiff_of_planes(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (5, 9, 7), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="separate")
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.tif")), np.moveaxis(values, 0, -1))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_all_bits_of_a_png_with_deep_colors(write, monkeypatch, channels):
    values = np.random.default_rng(0).integers(0, 65536, (9, 7, channels), dtype=np.uint16)
    path = write("a.png", imagecodecs.png_encode(values))
    assert np.array_equal(np.asarray(open_image(path)), values)
    monkeypatch.setattr("vitcli.data.decode.find_spec", lambda name: None)  # as without the extra
    if channels > 2:  # Pillow makes it four channels
        assert np.array_equal(np.asarray(open_image(path)), values >> 8)
    assert open_image(path).info[HIGH_BYTES]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int16", "int64", "float16", ">f8"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 3), (9, 7, 6), (6, 9, 7)])
def test_arrays_of_numpy(tmp_path, shape, dtype):
    values = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    found = np.asarray(open_image(tmp_path / "a.npy"))
    expected = (values * np.uint8(255) if dtype == "bool" else values).astype("float32")
    expected = np.moveaxis(expected, 0, -1) if shape == (6, 9, 7) else expected
    assert np.array_equal(found.astype("float32"), expected)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([{"a": 1}], dtype=object), "an array of shape"),
        (np.full((2, 2), None), "an array of object"),
        (np.zeros((2, 2), dtype=complex), "an array of complex128"),
        (np.zeros(5), "an array of shape"),
        (np.zeros((0, 5)), "an array of shape"),
        (np.zeros((5, 2, 2, 2)), "an array of shape"),
        (np.zeros((3, 400, 300), dtype=np.uint8), "300 x 400 pixels are more than"),
        (np.zeros((90, 50, 90), dtype=np.uint8), "50 x 90 pixels of 90 channels are more than"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, values, reason):
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    with pytest.raises(BadImage, match=reason):
        open_image(tmp_path / "a.npy", max_image_pixels=100_000)


def test_a_large_array_and_a_large_tiff_cost_no_memory(tmp_path):
    np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=(30_000, 30_000, 6))
    tifffile.memmap(tmp_path / "b.tif", shape=(30_000, 30_000, 3), dtype=np.uint16, photometric="rgb", bigtiff=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("a.npy", "b.tif"):
        with pytest.raises(BadImage, match=r"more( pixels)? than max_image_pixels"):
            open_image(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_formats_that_pillow_brings(write, kind):
    path = write("a.jpg", encoded(photo(), kind))
    with Image.open(path) as expected:
        assert same(open_image(path), expected)


def test_heic(write, monkeypatch):
    content = (Path(__file__).parent / "small.heic").read_bytes()
    found = np.asarray(open_image(write("a.heic", content)), dtype=float)
    assert np.abs(found - np.asarray(photo(64, 64), dtype=float)).mean() < 12
    monkeypatch.setattr("vitcli.data.decode.find_spec", lambda name: None)
    with pytest.raises(BadImage, match="a file of the format HEIF") as caught:
        open_image(write("a.heic", content))
    assert "pip install 'vitcli[formats]'" in str(caught.value)


@pytest.mark.parametrize("dtype", ["int8", "uint32", "float64"])
def test_values_that_pillow_would_change_need_the_extra(tmp_path, monkeypatch, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 7), dtype), photometric="minisblack")
    monkeypatch.setattr("vitcli.data.array_files.find_spec", lambda name: None)
    with pytest.raises(BadImage, match="a TIFF whose values Pillow cannot read"):
        open_image(tmp_path / "a.tif")


def test_what_needs_the_extra_says_so(write, tmp_path, monkeypatch):
    monkeypatch.setattr("vitcli.data.array_files.find_spec", lambda name: None)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 7, 6), np.uint8), photometric="minisblack", planarconfig="contig")
    for path in (tmp_path / "a.tif", write("a.jxl", b"\xff\x0a" + bytes(40))):
        with pytest.raises(BadImage) as caught:
            open_image(path)
        assert "pip install '" in str(caught.value)


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
