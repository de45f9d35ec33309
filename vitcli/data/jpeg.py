"""JPEG files of which only the header was read: decoded when their pixels are needed, whole or reduced.

libjpeg-turbo (by simplejpeg) gives the pixels that Pillow gives, in about two thirds of the time, and lets other
threads run. Whatever is unusual (CMYK, 12 bits, arithmetic coding, a damaged file) is left to Pillow.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import simplejpeg
from PIL import Image

from vitcli.data.bands import Picture
from vitcli.data.pixels import Pixels, in_array

START = b"\xff\xd8\xff"
Box = tuple[int, int, int, int]  # left, top, right, bottom

_START_OF_FRAME = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; all with Huffman coding
_NO_SEGMENT = (0x01, *range(0xD0, 0xD9))  # markers without a length
_END = (0xD9, 0xDA)  # end of image, start of scan
_APP1 = 0xE1
_ORIENTATION = 0x0112
_SWAPPING = (
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
)  # fmt: skip


class JpegHeader(NamedTuple):
    width: int  #: px, as stored
    height: int
    channels: int  #: 1 or 3
    orientation: int | None  #: of EXIF, 1 to 8; None: only Pillow can tell


@dataclass(frozen=True)
class Jpeg:
    """A JPEG file of 8 bits, gray or YCbCr.

    data: the file. stored_size: (width, height) in px as stored. channels: 1 or 3. turn: the operation that makes it
    upright; None: it is. by_pillow: decodes it, or raises a BadImage that says why it cannot.
    """

    data: bytes
    stored_size: tuple[int, int]
    channels: int
    turn: Image.Transpose | None
    by_pillow: Callable[[], Image.Image]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px when upright."""
        width, height = self.stored_size
        return (height, width) if self.turn in _SWAPPING else (width, height)

    @cached_property
    def pixels(self) -> Pixels:
        """All of the image, upright."""
        return self._decoded(0, 0)

    def picture(self) -> Picture:
        return self.pixels.picture()

    def reduced(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Box]:
        """The image reduced to 1/2, 1/4 or 1/8 while it is decoded, and `box` in it.

        Reduced as far as the box keeps at least `size` (width, height), so that it need not be enlarged afterwards.
        """
        left, top, right, bottom = box
        room = min((right - left) // size[0], (bottom - top) // size[1])
        if room < 2:
            return self.pixels, box
        factor = 8 if room >= 8 else 4 if room >= 4 else 2
        width, height = self.stored_size
        image = self._decoded(-(-width // factor), -(-height // factor))
        x, y = image.width / self.size[0], image.height / self.size[1]
        return image, (round(left * x), round(top * y), round(right * x), round(bottom * y))

    def _decoded(self, min_width: int, min_height: int) -> Pixels:
        colors = "RGB" if self.channels == 3 else "GRAY"
        try:
            values = simplejpeg.decode_jpeg(self.data, colors, min_width=min_width, min_height=min_height)
        except ValueError:  # also for what Pillow does not mind
            return in_array(self.by_pillow().convert("RGB" if self.channels == 3 else "L"))
        return Pixels(values) if self.turn is None else Pixels(values).transpose(self.turn)


def read_header(data: bytes) -> JpegHeader | None:
    """Of a JPEG file of 8 bits, gray or YCbCr; None: it is another kind, or damaged."""
    orientation: int | None = 1
    position = 2
    try:
        while True:
            marker = data[position + 1]
            if data[position] != 0xFF or marker in _END:
                return None
            if marker == 0xFF or marker in _NO_SEGMENT:
                position += 1 if marker == 0xFF else 2
                continue
            (length,) = struct.unpack_from(">H", data, position + 2)
            if marker in _START_OF_FRAME:
                bits, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
                fits = bits == 8 and channels in (1, 3) and height > 0 and width > 0
                return JpegHeader(width, height, channels, orientation) if fits else None
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                return None
            if marker == _APP1:
                orientation = _orientation(data[position + 4 : position + 2 + length]) if orientation == 1 else None
            position += 2 + length
    except (IndexError, struct.error):
        return None


def _orientation(segment: bytes) -> int | None:
    """What the segment APP1 of a file says; None: only Pillow can tell. (TIFF 6.0: a header and a list of tags.)"""
    if not segment.startswith(b"Exif\0\0"):
        return None  # XMP may hold it too
    tiff = segment[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number, value = struct.unpack_from(f"{order}HHIH", tiff, place)
            if tag == _ORIENTATION:
                return value if kind == 3 and number == 1 and 1 <= value <= 8 else None
    except struct.error:
        pass
    return None  # XMP may hold it
