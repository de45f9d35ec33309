"""Looks at some images of a data set before a training: their channels, and which values are black and white."""

import numpy as np

from vitcli.data.bands import bands_of
from vitcli.data.decode import BadImage
from vitcli.data.pixel_format import DEEP, SIXTEEN_BITS, Limits, PixelFormat, declared
from vitcli.data.source import Source

#: images that are looked at, evenly spread over the set
NUM_IMAGES = 16


def settled_range(images: Source, in_channels: int, pixel_range: Limits | str) -> Limits | str:
    """What `pixel_range` means for the whole set: "auto" only if its images have 8 bits per channel.

    Images that cannot be read are left to the training, which says so.

    Raises:
        UnfitImage: they have other channels; or more bits, and their values do not show which range is used.
    """
    fits = PixelFormat(in_channels, SIXTEEN_BITS if isinstance(pixel_range, str) else pixel_range)
    deep = []
    some = images.subset(NUM_IMAGES)
    for index in range(len(some)):
        try:
            image = some.load(index)
        except BadImage:
            continue
        fits(image)
        bands = bands_of(image)
        deep += bands if any(band.mode in DEEP for band in bands) else ()
    if not deep or not isinstance(pixel_range, str):
        return pixel_range
    return declared("the images have", deep, [np.asarray(band) for band in deep])
