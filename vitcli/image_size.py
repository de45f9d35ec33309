"""The size of an image in pixels, as recipes and models take it: the side of a square, or (height, width)."""

from collections.abc import Sequence

ImageSize = int | Sequence[int]


def height_and_width(size: ImageSize) -> tuple[int, int]:
    """Both sides of `size`."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def shortest(size: ImageSize) -> int | tuple[int, int]:
    """`size` as it is written: one number for a square."""
    height, width = height_and_width(size)
    return height if height == width else (height, width)


def in_words(size: ImageSize) -> str:
    """As in "224 px" or "64 x 96 px"."""
    height, width = height_and_width(size)
    return f"{height} px" if height == width else f"{height} x {width} px"
