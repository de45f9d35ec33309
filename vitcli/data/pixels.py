"""Images of 8 bits in arrays: for training, where they are cropped without a copy and resized by vector instructions.

The result of a resize is that of Pillow (antialiased, weights and order of the two passes the same) but for rounding:
a value may differ by one level per pass. PyTorch's kernels for uint8 need about half of Pillow's time with AVX2.
Evaluation uses Pillow, so that it sees the same pixels as an exported network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vitcli.data.bands import Bands, Picture

Transpose = Image.Transpose
Resampling = Image.Resampling
#: Pillow's filters that PyTorch has too
_MODES = {Resampling.BILINEAR: "bilinear", Resampling.BICUBIC: "bicubic"}


@dataclass(frozen=True)
class Pixels:
    """values: (H, W, C) uint8, of any strides. The methods are those of Pillow's images."""

    values: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def width(self) -> int:
        return self.values.shape[1]

    @property
    def height(self) -> int:
        return self.values.shape[0]

    def getbands(self) -> tuple[str, ...]:
        return tuple(str(number) for number in range(self.values.shape[2]))

    def crop(self, box: tuple[int, int, int, int]) -> Pixels:
        left, top, right, bottom = box
        return Pixels(self.values[top:bottom, left:right])

    def resize(self, size: tuple[int, int], resample: Resampling) -> Pixels:
        """size: (width, height) in px."""
        if size == self.size:
            return self
        if resample not in _MODES:
            return in_array(self.picture().resize(size, resample))
        return Pixels(_resized(self.values, size, _MODES[resample]))

    def transpose(self, method: Transpose) -> Pixels:
        return Pixels(_TURNED[method](self.values))

    def with_channels(self, number: int) -> Pixels:
        """The same image, or gray in that many equal channels."""
        found = self.values.shape[2]
        return self if found == number else Pixels(np.broadcast_to(self.values, (*self.values.shape[:2], number)))

    def picture(self) -> Picture:
        """The same image for Pillow: of mode L or RGB, or bands."""
        values, channels = np.ascontiguousarray(self.values), self.values.shape[2]
        if channels in (1, 3):
            return Image.fromarray(values[:, :, 0] if channels == 1 else values)
        return Bands(tuple(Image.fromarray(np.ascontiguousarray(values[:, :, band])) for band in range(channels)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)


def in_array(image: Picture) -> Pixels:
    """Bands of 8 bits, or an image of mode L or RGB."""
    values = np.asarray(image)
    return Pixels(values if values.ndim == 3 else values[:, :, None])


def _resized(values: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """(H, W, C) -> (h, w, C) for (w, h) = size; two passes, in Pillow's order."""
    import torch
    from torch.nn.functional import interpolate

    (width, height), (rows, columns, channels) = size, values.shape
    if channels <= 4:  # the strides say "channels last" for every dimension: only then the result is that as well
        images = torch.from_numpy(np.require(values, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    else:  # PyTorch has no vectorized kernel for more than four channels: one image per channel
        images = torch.from_numpy(np.require(values.transpose(2, 0, 1), requirements=["C", "W"]))[:, None]
    if rows > height and rows - height > 2 * (columns - width):  # Pillow does what saves more rows first, since 13.0
        images = interpolate(images, (height, columns), mode=mode, antialias=True)
    images = interpolate(images, (height, width), mode=mode, antialias=True)  # (1, C, h, w) or (C, 1, h, w)
    return images.flatten(0, 1).permute(1, 2, 0).numpy()


#: the ways to turn an array (H, W, C); none of them copies it
_TURNED = {
    Transpose.FLIP_LEFT_RIGHT: lambda values: values[:, ::-1],
    Transpose.FLIP_TOP_BOTTOM: lambda values: values[::-1],
    Transpose.ROTATE_180: lambda values: values[::-1, ::-1],
    Transpose.TRANSPOSE: lambda values: values.swapaxes(0, 1),
    Transpose.ROTATE_270: lambda values: values.swapaxes(0, 1)[:, ::-1],
    Transpose.TRANSVERSE: lambda values: values.swapaxes(0, 1)[::-1, ::-1],
    Transpose.ROTATE_90: lambda values: values.swapaxes(0, 1)[::-1],
}
