"""Small images and folders of them, made on the fly."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitcli.data.pixels import Pixels


def photo(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    """A smooth RGB picture with some noise, so that JPEG and resizing have something to do."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    picture = np.stack([x, y, (x + y + seed * 0.3) / 2 % 1], axis=-1) * 200 + rng.integers(0, 56, (height, width, 3))
    return Image.fromarray(picture.astype(np.uint8))


def picture(image: Image.Image | Pixels) -> Image.Image:
    """For Pillow, what a training view gives."""
    return image.picture() if isinstance(image, Pixels) else image


def same(image: Image.Image | Pixels, other: Image.Image | Pixels) -> bool:
    """Whether mode, size and every pixel are equal."""
    image, other = picture(image), picture(other)
    return image.mode == other.mode and np.array_equal(np.asarray(image), np.asarray(other))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb_png(side: int) -> bytes:
    """A PNG whose header promises side x side pixels, in a few dozen bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def write_images(folder: Path, count: int, draw: Callable[[int], Image.Image]) -> None:
    """0.png, 1.png, ... with what `draw` makes of their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        draw(number).save(folder / f"{number}.png")


def reddish(number: int) -> Image.Image:
    return Image.new("RGB", (40, 32), (200 + 3 * number, 60 + 3 * number, 40 + 3 * number))


def bluish(number: int) -> Image.Image:
    return Image.new("RGB", (40, 32), (40 + 3 * number, 60 + 3 * number, 200 + 3 * number))


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes, 12 + 6 images of 40 x 32 pixels each, told apart by their color."""
    for split, count in (("train", 12), ("val", 6)):
        write_images(tmp_path / "images" / split / "cat", count, reddish)
        write_images(tmp_path / "images" / split / "dog", count, bluish)
    return tmp_path / "images"


@pytest.fixture
def make_image_folder(tmp_path: Path) -> Callable[[dict[str, int]], Path]:
    """make_image_folder({"train/cat": 3, "val/cat": 1}) -> the data_dir, with this number of images in each folder."""

    def make(counts: dict[str, int]) -> Path:
        for folder, count in counts.items():
            write_images(tmp_path / "data" / folder, count, lambda i, folder=folder: photo(12, 10, i + len(folder)))
        return tmp_path / "data"

    return make
