"""Files of images that Pillow cannot read, or only 8 bits of: numpy's, TIFFs of any kind, PNGs with colors of 16 bits.

The last two need the extra `formats`.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import BinaryIO

import numpy as np
from PIL import Image

from vitcli.data.bands import Bands, Picture
from vitcli.errors import DataError

#: raises for a width, height and number of channels that are too large
CheckSize = Callable[[int, int, int], None]


def read_npy(file: BinaryIO, check_size: CheckSize) -> Picture:
    """(H, W), (H, W, C) or (C, H, W) of any real type; the shortest of three axes is that of the channels.

    Raises:
        DataError: another shape or type. (ValueError of numpy: not a valid file, or one with Python objects.)
    """
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    check_size(*_size(shape))
    if dtype.hasobject or dtype.kind not in "buif":
        raise DataError(f"an array of {dtype}; pixels are whole or floating-point numbers")
    file.seek(0)
    return _picture(np.lib.format.read_array(file, allow_pickle=False))


def read_tiff(file: BinaryIO, check_size: CheckSize) -> tuple[Picture, int]:
    """The first page with all its channels, and its orientation (tag 274)."""
    if not find_spec("tifffile"):
        raise DataError("a TIFF whose values Pillow cannot read", help="pip install 'vitcli[formats]'")
    import tifffile

    file.seek(0)
    with tifffile.TiffFile(file, name="image.tif") as tiff:
        page = tiff.pages.first
        check_size(page.imagewidth, page.imagelength, page.samplesperpixel)
        pixels = page.asarray()
        picture = _picture(np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels, channels_last=True)
        return picture, int(page.tags.valueof(274, 1))


def read_png(file: BinaryIO) -> Picture:
    """All bits of every channel."""
    import imagecodecs

    file.seek(0)
    return _picture(imagecodecs.png_decode(file.read()), channels_last=True)


def _size(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Width, height, channels."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise DataError(f"an array of shape {shape}; an image is (H, W), (H, W, C) or (C, H, W)")
    if len(shape) == 2:
        return shape[1], shape[0], 1
    return (shape[2], shape[1], shape[0]) if _has_channels_first(shape) else (shape[1], shape[0], shape[2])


def _has_channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] < min(shape[1:])


def _picture(pixels: np.ndarray, *, channels_last: bool = False) -> Picture:
    if not channels_last and _has_channels_first(pixels.shape):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.ndim == 2:
        return _band(pixels)
    if pixels.dtype == np.uint8 and pixels.shape[2] in (3, 4):
        return Image.fromarray(np.ascontiguousarray(pixels))
    return Bands(tuple(_band(pixels[:, :, number]) for number in range(pixels.shape[2])))


def _band(values: np.ndarray) -> Image.Image:
    """(H, W) as the smallest of Pillow's types that holds all values of the array's type: L, I;16, I or F."""
    kinds = {"uint8": np.uint8, "uint16": np.uint16, "int8": np.int32, "int16": np.int32, "int32": np.int32}
    return Image.fromarray(np.ascontiguousarray(values, dtype=kinds.get(values.dtype.name, np.float32)))
