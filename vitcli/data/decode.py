"""Reads one file as an RGB image, or raises a `BadImage` that says why it cannot.

The rules for all kinds of files:

* Formats: JPEG (MPO too), PNG, WebP, BMP, PPM/PGM, GIF and TIFF, recognized by content, not by the file's name.
* Only regular files are opened (a FIFO would block forever); links are followed.
* The size is read from the header first: an image of more than `max_image_pixels` is never decoded. Pillow's own limit
  of 178,956,970 pixels is the upper bound of ours.
* A truncated or damaged file is an error; missing pixels are never filled in.
* EXIF orientation is applied, so photographs are upright. (timm and torchvision ignore it.)
* 16-bit gray images are reduced to 8 bits by dropping the low byte, as Pillow does for 16-bit color.
* Gray, palette, 1-bit and CMYK images become RGB by Pillow's `convert`. Transparency is dropped, not composited, as in
  timm and torchvision. Images of 32-bit floats are refused: their range is unknown.
* Of an animation or a multi-page file the first frame is used.
"""

import os
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401  importing the last two registers them

from vitcli.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "GIF", "TIFF")

_EXIF_ORIENTATION = 0x0112
#: EXIF orientation -> the operation that makes the image upright (TIFF 6.0, tag 274)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(DataError):
    """A file that cannot be read as an image; `path` and `reason` say which and why."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"cannot read the image {os.fspath(path)!r}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self):
        return BadImage, (self.path, self.reason)


def open_image(path: str | Path, *, max_image_pixels: int = 178_956_970) -> Image.Image:
    """The image at `path` in mode RGB, upright. Raises BadImage; the policy is at the top of this module."""
    try:
        with _open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images (our limit decides) and unusual metadata
            image = Image.open(file, formats=FORMATS)
            if image.width * image.height > max_image_pixels:
                size = f"{image.width:,} x {image.height:,}"
                raise BadImage(path, f"{size} pixels are more than max_image_pixels {max_image_pixels:,}")
            return to_rgb(image)
    except BadImage:
        raise
    except Image.DecompressionBombError:
        raise BadImage(path, "more pixels than max_image_pixels and Pillow allow") from None
    except Image.UnidentifiedImageError:
        raise BadImage(path, "not an image of a known format") from None
    except OSError as error:
        raise BadImage(path, error.strerror or str(error)) from None
    except Exception as error:  # a decoder may raise anything on a malicious file
        raise BadImage(path, f"{type(error).__name__}: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """The first frame of `image`, 8 bits per channel, mode RGB, upright. Raises ValueError for 32-bit floats."""
    image.load()
    upright = _UPRIGHT.get(_orientation(image))
    if image.mode == "F":
        raise ValueError("32-bit floating point images have no defined range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image if upright is None else image.transpose(upright)


def _open_regular(path: str | Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        os.close(descriptor)
        raise BadImage(path, "the file is empty" if stat.S_ISREG(status.st_mode) else "not a regular file")
    return os.fdopen(descriptor, "rb")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # the pixels may be fine when EXIF is damaged
        return 1
