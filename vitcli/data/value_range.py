"""Which values of the images of a data set are black and white, found by looking at some of them before a training."""

import numpy as np

from vitcli.data.bands import bands_of
from vitcli.data.decode import BadImage
from vitcli.data.pixel_format import DEEP, Limits, declared
from vitcli.data.source import Source

#: images that are looked at, evenly spread over the set
NUM_IMAGES = 16


def range_of(images: Source) -> Limits | None:
    """What `pixel_range: auto` means for the whole set; None if the images that were looked at have 8 bits per channel.

    Images that cannot be read are left to the training, which says so.

    Raises:
        UnfitImage: they have more bits, and their values do not show which range is used.
    """
    deep = []
    for index in range(0, len(images), max(1, len(images) // NUM_IMAGES)):
        try:
            bands = bands_of(images.load(index))
        except BadImage:
            continue
        deep += bands if any(band.mode in DEEP for band in bands) else ()
    return declared("the images have", deep, [np.asarray(band) for band in deep]) if deep else None
