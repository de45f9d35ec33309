"""Which files count as images: by the suffix of their names or, where there is none, by their first bytes."""

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageFormat:
    """A file format.

    name: Pillow's name for it; NPY is numpy's. begins: what every file of it begins with. package: what has to be
    installed to read it.
    """

    name: str
    suffixes: tuple[str, ...]
    begins: re.Pattern[bytes]
    package: str = ""


def _format(name: str, suffixes: str, begins: bytes, package: str = "") -> ImageFormat:
    return ImageFormat(name, tuple(suffixes.split()), re.compile(begins, re.DOTALL), package)


FORMATS = (
    _format("JPEG", ".jpg .jpeg .jpe .jfif", rb"\xff\xd8\xff"),
    _format("PNG", ".png .apng", rb"\x89PNG\r\n\x1a\n"),
    _format("WEBP", ".webp", rb"RIFF....WEBP"),
    _format("BMP", ".bmp", rb"BM....\0\0\0\0"),
    _format("PPM", ".ppm .pgm .pbm .pnm", rb"P[1-6]\s"),
    _format("GIF", ".gif", rb"GIF8[79]a"),
    _format("TIFF", ".tif .tiff", rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
    _format("AVIF", ".avif", rb"....ftypavi[fs]"),
    _format("JPEG2000", ".jp2 .j2k .jpx", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    _format("HEIF", ".heic .heif .hif", rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", "vitcli[formats]"),
    _format("JXL", ".jxl", rb"\xff\x0a|\0\0\0\x0cJXL ", "pillow-jxl-plugin"),
    _format("NPY", ".npy", rb"\x93NUMPY"),
)
SUFFIXES = frozenset(suffix for known in FORMATS for suffix in known.suffixes)
#: bytes of a file that are enough to recognize it
LONGEST_START = 32


def format_of(start: bytes) -> ImageFormat | None:
    """The format of a file that begins with the bytes `start`; None: of none of them."""
    return next((known for known in FORMATS if known.begins.match(start)), None)


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def named_like_image(name: str) -> bool:
    return suffix_of(name) in SUFFIXES


def is_image(path: str) -> bool:
    """Whether a regular file is named like an image, or has no suffix and begins like one."""
    suffix = suffix_of(path)
    if suffix:
        return suffix in SUFFIXES
    try:
        with open(path, "rb") as file:
            return format_of(file.read(LONGEST_START)) is not None
    except OSError:  # whoever lists the folder says that it was left out
        return False
