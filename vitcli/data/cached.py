"""A data set whose decoded images are kept in memory, once for the training process and all of its workers."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from vitcli.data.decode import BadImage
from vitcli.data.jpeg import Jpeg
from vitcli.data.pixel_format import PixelFormat, UnfitImage
from vitcli.data.pixels import Pixels
from vitcli.data.shared_bytes import SharedBytes
from vitcli.data.source import Source
from vitcli.errors import DataError

#: the part of the available memory that the images of a set may take
LARGEST_PART = 0.5
#: images that are decoded before they are copied to shared memory
_BLOCK = 1024


class CachedImages(Source):
    """The images of `source`, as `format` makes them for a random crop.

    An image that cannot be read raises its BadImage when it is asked for, as without the cache.

    Raises:
        DataError: the images would take more than half of the memory that is available.
    """

    def __init__(self, source: Source, format: PixelFormat, *, available: Callable[[], int] | None = None) -> None:
        super().__init__(len(source), source.targets, source.class_names, source.notes)
        self.source, self.bad = source, dict[int, BadImage]()
        self.blocks: list[SharedBytes] = []
        self.shapes = np.zeros((len(source), 3), dtype=np.int32)  # height, width, channels
        self.starts = np.zeros(len(source), dtype=np.int64)  # within its block
        room, taken = (available or available_memory)() * LARGEST_PART, 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(source), _BLOCK):
                indices = range(start, min(start + _BLOCK, len(source)))
                taken += self._keep(start, list(pool.map(partial(_decoded, source, format), indices)))
                if (needed := taken * len(source) // (indices[-1] + 1)) > room:
                    message = f"the decoded images need about {needed / 2**30:,.1f} GiB of memory"
                    help = "set cache: none, or use smaller images: vitcli data pack --store raw --shorter_side 256"
                    raise DataError(f"{message}, more than half of what is available", help=help)
        self.num_bytes = taken

    def _keep(self, start: int, images: list[Pixels | BadImage]) -> int:
        """Copy the images from number `start` on into a block; its size in bytes."""
        for row, image in enumerate(images, start):
            if isinstance(image, BadImage):
                self.bad[row] = image
            else:
                self.shapes[row] = image.values.shape
        sizes = self.shapes[start : start + len(images)].prod(axis=1, dtype=np.int64)
        ends = np.cumsum(sizes)
        self.starts[start : start + len(images)] = ends - sizes
        block = SharedBytes(int(ends[-1]))
        for image, begin, end in zip(images, ends - sizes, ends, strict=True):
            if isinstance(image, Pixels):
                block.array[begin:end].reshape(image.values.shape)[:] = image.values
        self.blocks.append(block)
        return int(ends[-1])

    def pixels(self, index: int) -> Pixels:
        """The image `index`. Raises BadImage."""
        return self._load(int(self.rows[index]))

    def _load(self, row: int) -> Pixels:
        if row in self.bad:
            raise self.bad[row]
        start, shape = int(self.starts[row]), tuple(map(int, self.shapes[row]))
        content = self.blocks[row // _BLOCK].array[start : start + shape[0] * shape[1] * shape[2]]
        return Pixels(content.reshape(shape))

    def _name(self, row: int) -> str:
        return self.source.name(row)

    def _digests(self) -> dict[str, str]:
        return self.source.select(self.rows)._digests()


def _decoded(source: Source, format: PixelFormat, index: int) -> Pixels | BadImage:
    try:
        image = format.ready_to_crop(source.open(index))
        return image.pixels if isinstance(image, Jpeg) else image
    except BadImage as error:
        return error
    except UnfitImage as error:
        return BadImage(source.name(index), error.message, error.help)


def available_memory() -> int:
    """Bytes of memory that programs can still get; what is installed, where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        facts = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(facts["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
