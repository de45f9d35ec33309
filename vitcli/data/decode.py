"""Decodes one file as an upright image with the values that it holds, or raises a `BadImage` that says why it cannot.

The rules for all kinds of files:

* Formats: those of `image_formats.py`, recognized by content, not by the file's name.
* Only regular files are opened (a FIFO would block forever); links are followed.
* The size is read from the header first: an image of more than `max_image_pixels` is never decoded. Pillow's own limit
  of 178,956,970 pixels is the upper bound of ours.
* A truncated or damaged file is an error; missing pixels are never filled in.
* EXIF orientation is applied, so photographs are upright. (timm and torchvision ignore it.)
* Images of more than 8 bits per channel keep their values. `pixel_format.py` reduces them to 8 bits, and makes all
  images those of one number of channels.
* Palette, 1-bit and CMYK images become RGB or gray by Pillow's `convert`. Transparency is a channel of its own, which
  is dropped later where three channels or one are wanted, and not composited, as in timm and torchvision.
* Of an animation or a multi-page file the first frame is used.
"""

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401  importing the last two registers them

from vitcli.data.array_files import read_npy, read_png, read_tiff
from vitcli.data.bands import Picture
from vitcli.data.image_formats import LONGEST_START, ImageFormat, format_of
from vitcli.data.jpeg import START, Jpeg, read_header
from vitcli.data.pixel_format import HIGH_BYTES
from vitcli.errors import DataError
from vitcli.recipe.schema import default

_EXIF_ORIENTATION = 0x0112
#: EXIF orientation -> the operation that makes the image upright (TIFF 6.0, tag 274)
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PILLOWS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "GIF", "TIFF", "AVIF", "JPEG2000")
#: bytes; Pillow reads a larger file only as far as it must, such as the first page of many
_LARGEST_IN_MEMORY = 2**28
_AS_STORED = ("L", "LA", "RGB", "RGBA", "I;16", "I", "F")


class BadImage(DataError):
    """A file that cannot be read as an image; `path` and `reason` say which and why."""

    def __init__(self, path: str | Path, reason: str, help: str | None = None) -> None:
        super().__init__(f"cannot read the image {os.fspath(path)!r}: {reason}", help=help)
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self):
        return BadImage, (self.path, self.reason, self.help)


def open_image(path: str | Path, *, max_image_pixels: int = default("max_image_pixels")) -> Picture:
    """The image at `path`, upright: of mode L, LA, RGB or RGBA, with more than 8 bits of mode I;16, I or F, or bands.

    Raises:
        BadImage: the policy is at the top of this module.
    """
    with _faults_of(path), _open_regular(path) as file:
        return _decode(file, max_image_pixels)


def decode_image(data: bytes, name: str, *, max_image_pixels: int = default("max_image_pixels")) -> Picture:
    """The image whose file is `data`, as `open_image` gives it; messages call it `name`.

    Raises:
        BadImage: as `open_image`.
    """
    with _faults_of(name):
        if not data:
            raise BadImage(name, "the file is empty")
        return _decode(BytesIO(data), max_image_pixels)


def lazy_image(path: str | Path, *, max_image_pixels: int = default("max_image_pixels")) -> Picture | Jpeg:
    """The image at `path`, as `open_image` gives it, but of a JPEG file only the header is read until it is needed.

    Raises:
        BadImage: as `open_image`; of a JPEG file whose pixels are damaged, when they are decoded.
    """
    with _faults_of(path), _open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > _LARGEST_IN_MEMORY:
            return _decode(file, max_image_pixels)
        data = file.read()
    return lazy_image_in(data, os.fspath(path), max_image_pixels=max_image_pixels)


def lazy_image_in(data: bytes, name: str, *, max_image_pixels: int = default("max_image_pixels")) -> Picture | Jpeg:
    """The image whose file is `data`, as `lazy_image` gives it; messages call it `name`."""
    whole = partial(decode_image, data, name, max_image_pixels=max_image_pixels)
    header = read_header(data) if data.startswith(START) else None
    if header is None:
        return whole()
    with _faults_of(name):
        _check_size(max_image_pixels, header.width, header.height)
        orientation = header.orientation
        if orientation is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                orientation = _orientation(Image.open(BytesIO(data), formats=("JPEG",)))
    turn = _TO_UPRIGHT.get(orientation)
    return Jpeg(data, (header.width, header.height), header.channels, turn, whole)  # pyright: ignore[reportArgumentType]


def read_file(path: str | Path) -> bytes:
    """The bytes of a regular file. Raises BadImage."""
    with _faults_of(path), _open_regular(path) as file:
        return file.read()


@contextmanager
def _faults_of(name: str | Path) -> Iterator[None]:
    """Whatever goes wrong meanwhile becomes a BadImage of the image `name`."""
    try:
        yield
    except BadImage:
        raise
    except Image.DecompressionBombError:
        raise BadImage(name, "more pixels than max_image_pixels and Pillow allow") from None
    except OSError as error:
        raise BadImage(name, error.strerror or str(error)) from None
    except DataError as error:
        raise BadImage(name, error.message, error.help) from None
    except Exception as error:  # a decoder may raise anything on a malicious file
        raise BadImage(name, f"{type(error).__name__}: {error}") from None


def _decode(file: BinaryIO, max_image_pixels: int) -> Picture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about large images (our limit decides) and unusual metadata
        return _decoded(file, max_image_pixels)


def _decoded(file: BinaryIO, max_image_pixels: int) -> Picture:
    known = format_of(file.read(LONGEST_START))
    file.seek(0)
    check = partial(_check_size, max_image_pixels)
    if known and known.name == "NPY":
        return read_npy(file, check)
    try:
        image = Image.open(file, formats=_formats_for(known))
    except Image.UnidentifiedImageError:
        if known and known.name == "TIFF":
            return _upright(*read_tiff(file, check))
        if known and known.package:
            raise DataError(f"a file of the format {known.name}", help=f"pip install {known.package!r}") from None
        raise DataError("not an image of a known format") from None
    check(image.width, image.height)
    if image.format == "TIFF" and _is_beyond_pillow(image):
        return _upright(*read_tiff(file, check))
    if image.format == "PNG" and _has_deep_colors(image) and find_spec("imagecodecs"):
        return _upright(read_png(file), _orientation(image))
    return _upright(_loaded(image), _orientation(image))


def _check_size(most: int, width: int, height: int, channels: int = 1) -> None:
    """DataError for too many pixels; more than four channels count like more pixels."""
    if width * height * max(channels / 4, 1) > most:
        of = f" of {channels:,} channels" if channels > 4 else ""
        raise DataError(f"{width:,} x {height:,} pixels{of} are more than max_image_pixels {most:,}")


def _loaded(image: Image.Image) -> Image.Image:
    """The first frame of `image` as it is stored, if it is of one of the modes `_AS_STORED`."""
    is_reduced = _has_deep_colors(image)
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # which Pillow scales to 16 bits
        image = Image.fromarray(np.asarray(image).astype(np.uint16))
    elif image.mode not in _AS_STORED:
        image = image.convert("L" if image.mode == "1" else "RGB")
    if is_reduced:
        image.info[HIGH_BYTES] = True
    return image


def _has_deep_colors(image: Image.Image) -> bool:
    """Whether the file holds several channels of 16 bits, of which Pillow reads the upper 8."""
    tiles = getattr(image, "tile", None)
    return bool(tiles) and image.mode in ("LA", "RGB", "RGBA") and ";16" in str(tiles[0][3])


def _is_beyond_pillow(image: Image.Image) -> bool:
    """Whether Pillow would change the values of a TIFF.

    Without the extra, colors of 16 bits are read by Pillow, which keeps the upper 8, and a fourth channel as it can.
    """
    tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
    channels, bits, kind = tags.get(277, 1), max(tags.get(258, (1,))), max(tags.get(339, (1,)))
    if channels == 1:
        return (kind, bits) in ((2, 8), (1, 32)) or bits == 64
    if kind == 1 and bits <= 16 and channels <= 4 and not find_spec("tifffile"):
        return False
    is_whole = len(image.getbands()) == channels and (channels < 4 or image.mode == "CMYK")
    return bits > 8 or kind != 1 or not is_whole


def _upright(image: Picture, orientation: int) -> Picture:
    method = _TO_UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _formats_for(known: ImageFormat | None) -> tuple[str, ...]:
    """What Pillow may open; the plugin of a format is imported when the first file of that format comes."""
    match known and known.name:
        case "HEIF" if find_spec("pi_heif"):
            import pi_heif

            pi_heif.register_heif_opener()
            return (*_PILLOWS, "HEIF")
        case "JXL" if find_spec("pillow_jxl"):
            import pillow_jxl  # noqa: F401  # pyright: ignore[reportMissingImports]

            return (*_PILLOWS, "JXL")
    return _PILLOWS


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
