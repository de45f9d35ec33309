"""From the values that a file holds to what a network takes: 8 bits per channel, and as many channels as it has.

Images of more than 8 bits per channel (16-bit PNG and TIFF, integers of 32 bits, floating point) are divided into 256
equal steps from the darkest to the brightest value of `pixel_range`; values outside are clipped. What the range is
cannot be seen in most files: a microscope of 12 bits writes files of 16 bits. So without a range, 16 bits are taken
whole only if an image uses the upper half of their values, and every other image of more than 8 bits is refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from vitcli.data.bands import Bands, Picture, bands_of
from vitcli.data.jpeg import Jpeg
from vitcli.data.pixels import Pixels, in_array
from vitcli.errors import DataError
from vitcli.recipe.schema.augmentation import Limits

SIXTEEN_BITS: Limits = (0, 65535)
#: modes of Pillow whose values are not 8 bits: unsigned 16 bits, signed 32 bits, floating point
DEEP = ("I;16", "I", "F")
#: key of `Image.info`: only the upper 8 of 16 bits were read
HIGH_BYTES = "vitcli_high_bytes"


class UnfitImage(DataError):
    """An image that was read and cannot be given to the network, as its range or number of channels is another."""


@dataclass(frozen=True)
class PixelFormat:
    """Any picture -> one of 8 bits: mode RGB for 3 channels, mode L for 1, else bands.

    3 channels: gray is repeated, transparency dropped. 1: colors become gray by the luma of ITU-R 601. Another number:
    the image must have exactly that many, of which transparency may be one.

    pixel_range: the values that become black and white in images of more than 8 bits; "auto": see above.

    Raises:
        UnfitImage: when called: the range is not known, or the number of channels is another.
    """

    channels: int
    pixel_range: Limits | str = "auto"

    def __call__(self, image: Picture) -> Picture:
        image = in_8_bits(image, None if isinstance(self.pixel_range, str) else self.pixel_range)
        if self.channels in (1, 3):
            image = self._pillows(image)
            mode = "RGB" if self.channels == 3 else "L"
            return image if image.mode == mode else image.convert(mode)
        bands = bands_of(image)
        if len(bands) != self.channels:
            raise _wrong_number(len(bands), self.channels)
        return Bands(bands)

    def ready_to_crop(self, image: Picture | Pixels | Jpeg) -> Pixels | Jpeg:
        """The same, but a JPEG file of suitable colors is not decoded yet, and gray is not yet repeated."""
        if isinstance(image, Image.Image) and image.mode in ("L", "RGB") and HIGH_BYTES not in image.info:
            image = in_array(image)
        if isinstance(image, Pixels | Jpeg):
            found = image.channels if isinstance(image, Jpeg) else image.values.shape[2]
            if found == self.channels or (found == 1 and self.channels == 3):
                return image
            image = image.picture()
        return in_array(self(image))

    def _pillows(self, image: Picture) -> Image.Image:
        """Gray or color; the last of two or four bands is transparency, or as good as that."""
        if not isinstance(image, Bands):
            return image
        match image.bands:
            case (gray,) | (gray, _):
                return gray
            case (red, green, blue) | (red, green, blue, _):
                return Image.merge("RGB", (red, green, blue))
        raise _wrong_number(len(image.bands), self.channels)


def _wrong_number(found: int, wanted: int) -> UnfitImage:
    help = f"in_channels: {found} makes a network for such images"
    return UnfitImage(f"the image has {found} channel{'s' * (found > 1)}, the network takes {wanted}", help=help)


def in_8_bits(image: Picture, limits: Limits | None) -> Picture:
    """`image` with its values from `limits` in 256 steps, if it has more than 8 bits per channel; see the module.

    Raises:
        UnfitImage: the limits are needed and not known.
    """
    bands = image.bands if isinstance(image, Bands) else (image,)
    if not any(band.mode in DEEP for band in bands):
        if not isinstance(image, Bands) and HIGH_BYTES in image.info:
            _check_high_bytes(image, limits)
        return image
    values = [np.asarray(band) for band in bands]
    limits = limits or declared("the image has", bands, values)
    reduced = [Image.fromarray(steps(of_band, limits)) for of_band in values]
    return Bands(tuple(reduced)) if isinstance(image, Bands) else reduced[0]


def steps(values: np.ndarray, limits: Limits) -> np.ndarray:
    """Values of any type -> uint8: floor of 256 (x - low) / (number of values), clipped.

    The number of values is high - low, and one more for integers: 0..65535 is the upper byte, 0..255 stays as it is.
    """
    if values.dtype == np.uint8:
        return values
    low, high = limits
    if values.dtype == np.uint16:
        return _table(low, high)[values]
    return _steps(values.astype(np.float64), low, high - low + np.issubdtype(values.dtype, np.integer))


def _steps(values: np.ndarray, low: float, count: float) -> np.ndarray:
    return np.nan_to_num(np.floor((values - low) * 256 / count).clip(0, 255), nan=0.0).astype(np.uint8)


@lru_cache(maxsize=4)
def _table(low: float, high: float) -> np.ndarray:
    return _steps(np.arange(65536, dtype=np.float64), low, high - low + 1)


def declared(subject: str, bands: Sequence[Image.Image], values: Sequence[np.ndarray]) -> Limits:
    """All 16 bits, if the values of all bands are unsigned and their upper half is used.

    Raises:
        UnfitImage: otherwise; it says that `subject` (such as "the image has") these values.
    """
    low, high = _extremes(values)
    if all(band.mode in ("I;16", "L") for band in bands) and high > SIXTEEN_BITS[1] // 2:
        return SIXTEEN_BITS
    values_are = f"{_kind_of(bands)} and values from {_number(low)} to {_number(high)}"
    example = f"give it by pixel_range, for example [{_number(min(low, 0.0))}, {_number(_full(high))}]"
    dark = "; [0, 65535] if all 16 bits are used and the image is just dark" if low >= 0 and high.is_integer() else ""
    message = f"{subject} {values_are}; which are black and white is not known"
    raise UnfitImage(message, help=example + dark)


def _extremes(values: Sequence[np.ndarray]) -> Limits:
    """The smallest and the largest of the values that are finite."""
    finite = [of_band[np.isfinite(of_band)] if of_band.dtype.kind == "f" else of_band for of_band in values]
    found = [(float(some.min()), float(some.max())) for some in finite if some.size]
    lows, highs = zip(*found, strict=True) if found else ((0.0,), (0.0,))
    return min(lows), max(highs)


def _kind_of(bands: Sequence[Image.Image]) -> str:
    """In words, the type of values of the band with the most bits."""
    words = {"I;16": "16 bits per channel", "I": "whole numbers of 32 bits", "F": "floating-point numbers"}
    return next((words[mode] for mode in reversed(DEEP) if any(band.mode == mode for band in bands)), "8 bits")


def _full(high: float) -> float:
    """The largest number with as many bits as `high`; `high` itself if that is no whole number above 0."""
    return float(2 ** math.ceil(math.log2(high + 1)) - 1) if high >= 1 and high.is_integer() else high


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"


def _check_high_bytes(image: Image.Image, limits: Limits | None) -> None:
    """UnfitImage unless the upper 8 bits are all that is wanted of an image of 16-bit colors."""
    if limits == SIXTEEN_BITS:
        return
    highest = int(np.asarray(image).max())
    if limits is not None or highest < 128:
        message = "the image has colors of 16 bits, of which only the upper 8 can be read"
        if limits is None:
            message += f", and these are at most {highest}: which values are white is not known"
        raise UnfitImage(message, help="pip install 'vitcli[formats]' to read all bits, and give pixel_range")
