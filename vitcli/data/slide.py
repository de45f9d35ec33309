"""Moves the rows or columns of an image along themselves: translations and shears by the bicubic filter.

The pixels are those of Pillow's `transform`, which takes 1.6 times as long: it mixes 4 x 4 neighbors, although those of
one row or column are enough. The order of the operations is Pillow's as well (libImaging/Geometry.c), because a sum
that is rounded in another way may end on the other side of an integer.
"""

import numpy as np
from PIL import Image


def slide(
    image: Image.Image, slope: float, offset: float, fill: int | tuple[int, ...], *, rows: bool
) -> Image.Image | None:
    """Each row (else column) moved by `offset` plus `slope` times its position, in pixels; what enters is `fill`.

    None if the new positions in a row have different fractions, since rounding took some of them past an integer.
    """
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    x, y = np.arange(width)[None], np.arange(height)[:, None]
    along, across = (x, y) if rows else (y, x)
    size = along.size
    at = along + 0.5 + (slope * (across + 0.5) if slope else 0.0) + offset
    outside = np.broadcast_to((at < 0) | (at >= size), (height, width))
    at -= 0.5
    whole = np.floor(at)
    first = (whole[:, :1] if rows else whole[:1]).astype(np.intp)
    if not np.array_equal(whole, first + along):
        return None
    span = np.arange(-1, size + 2)  # one neighbor before, two after
    index = (first + (span[None] if rows else span[:, None])).clip(0, size - 1)
    index = index + y * width if rows else index * width + x
    near = pixels.reshape(height * width, -1).take(index, 0).astype(np.int16)
    a, b, c, d = (near[:, k : k + size] if rows else near[k : k + size] for k in range(4))
    part = (at - whole)[..., None]
    if part.shape[1] > 1:
        part = part.repeat(near.shape[2], 2)  # numpy multiplies long rows faster than many short ones
    moved = part * (b - a + d - c)
    moved += 2 * (a - b) + c - d
    moved *= part
    moved += c - a
    moved *= part
    moved += b
    result = moved.clip(0, 255, out=moved).astype(np.uint8)
    result[outside] = fill
    return Image.fromarray(result.reshape(pixels.shape))
