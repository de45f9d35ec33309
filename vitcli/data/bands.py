"""Images of any number of channels; those of Pillow have at most four, and resize colors by their transparency."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Bands:
    """One image of a single channel for each channel, all of one size; the methods are those of Pillow's images."""

    bands: tuple[Image.Image, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.bands[0].size

    @property
    def width(self) -> int:
        return self.bands[0].width

    @property
    def height(self) -> int:
        return self.bands[0].height

    def getbands(self) -> tuple[str, ...]:
        return tuple(str(number) for number in range(len(self.bands)))

    def crop(self, box: tuple[int, int, int, int]) -> Bands:
        return self.each(lambda band: band.crop(box))

    def resize(self, size: tuple[int, int], resample: Image.Resampling) -> Bands:
        return self.each(lambda band: band.resize(size, resample))

    def transpose(self, method: Image.Transpose) -> Bands:
        return self.each(lambda band: band.transpose(method))

    def filter(self, filter: ImageFilter.Filter) -> Bands:
        return self.each(lambda band: band.filter(filter))

    def each(self, operation: Callable[[Image.Image], Image.Image]) -> Bands:
        return Bands(tuple(map(operation, self.bands)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """(H, W, C)."""
        return np.stack([np.asarray(band, dtype=dtype) for band in self.bands], axis=-1)


#: an image of Pillow's, or bands
Picture = Image.Image | Bands


def bands_of(image: Picture) -> tuple[Image.Image, ...]:
    """The channels of any picture, each an image of its own."""
    return image.bands if isinstance(image, Bands) else image.split()
