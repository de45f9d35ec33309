"""What is in a data set, image by image: sizes, modes, what cannot be read, and which images are the same."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image

from vitcli.data.bands import Bands, Picture, bands_of
from vitcli.data.decode import BadImage
from vitcli.data.source import Source

#: bits of the hash of an image
NUM_BITS = 64


@dataclass
class Survey:
    """The readable images of `source`, in its order.

    Attributes:
        indices: (n,) int64, of the images in the source.
        sizes: (n, 2) int64, width and height in px.
        modes: of each image: Pillow's name, or the number of channels.
        digests: of each image's decoded pixels; equal for equal images only.
        hashes: (n,) uint64, 64-bit difference hashes (`difference_hash`); close for images that look alike.
        unreadable: the index and the reason of each image that cannot be read.
    """

    source: Source
    indices: np.ndarray
    sizes: np.ndarray
    modes: list[str]
    digests: list[bytes]
    hashes: np.ndarray
    unreadable: list[tuple[int, str]] = field(default_factory=list)

    def names(self, positions: np.ndarray) -> list[str]:
        """The images at these positions among the readable ones."""
        return [self.source.name(int(index)) for index in self.indices[positions]]


def survey(source: Source, advance: Callable[[], object] = lambda: None) -> Survey:
    """Read every image once, in threads; `advance` is called for each."""
    seen, unreadable = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for index, found in enumerate(pool.map(partial(_look, source), range(len(source)))):
            if isinstance(found, str):
                unreadable.append((index, found))
            else:
                seen.append((index, *found))
            advance()
    indices, sizes, modes, digests, hashes = zip(*seen, strict=True) if seen else ((), (), (), (), ())
    return Survey(
        source,
        np.array(indices, dtype=np.int64),
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
        list(modes),
        list(digests),
        np.array(hashes, dtype=np.uint64),
        unreadable,
    )


def _look(source: Source, index: int) -> tuple[tuple[int, int], str, bytes, int] | str:
    """Size, mode, digest and hash of one image; why it cannot be read."""
    try:
        image = source.load(index)
    except BadImage as error:
        return error.reason
    mode = f"{len(image.bands)} channels" if isinstance(image, Bands) else image.mode
    digest = hashlib.blake2b(f"{mode} {image.size}".encode(), digest_size=16)
    for band in bands_of(image):
        digest.update(np.asarray(band).tobytes())
    return image.size, mode, digest.digest(), difference_hash(image)


def difference_hash(image: Picture) -> int:
    """64 bits: whether each of 8 x 8 areas is darker than its right neighbor, in gray."""
    if isinstance(image, Bands):
        gray = image.bands[0]
    else:
        gray = image if image.mode in ("L", "I;16", "I", "F") else image.convert("RGB").convert("L")
    small = np.asarray(_in_float(gray).resize((9, 8), Image.Resampling.BOX))
    bits = np.packbits(small[:, :-1] < small[:, 1:])
    return int.from_bytes(bits.tobytes())


def _in_float(gray: Image.Image) -> Image.Image:
    return gray if gray.mode == "F" else Image.fromarray(np.asarray(gray, dtype=np.float32))


def same_images(first: Survey, second: Survey) -> Iterator[tuple[int, int]]:
    """Positions (in `first`, in `second`) of images with equal pixels; of one survey, each pair once."""
    places: dict[bytes, list[int]] = {}
    for position, digest in enumerate(first.digests):
        places.setdefault(digest, []).append(position)
    for position, digest in enumerate(second.digests):
        for other in places.get(digest, ()):
            if first is not second or other < position:
                yield other, position


def similar_images(first: Survey, second: Survey, most_bits: int) -> list[tuple[int, int, int]]:
    """(position in `first`, position in `second`, bits) of images whose hashes differ in at most so many of 64 bits.

    At most 3: then one of the four quarters of the two hashes is equal, and only images that share one are compared.
    Images with equal pixels are left out. Sorted by the number of bits.
    """
    assert most_bits < 4
    found: dict[tuple[int, int], int] = {}
    for shift in range(0, NUM_BITS, 16):
        ours, theirs = ((some.hashes >> np.uint64(shift)) & np.uint64(0xFFFF) for some in (first, second))
        order = np.argsort(ours, kind="stable")
        values, counts = np.unique(theirs, return_counts=True)
        starts, ends = (np.searchsorted(ours[order], values, side) for side in ("left", "right"))
        rows = np.split(np.argsort(theirs, kind="stable"), np.cumsum(counts)[:-1])
        for start, end, of_second in zip(starts, ends, rows, strict=True):
            if start == end:
                continue
            of_first = order[start:end]
            for part in np.array_split(of_second, -(-len(of_second) * len(of_first) // 2**24)):
                bits = np.bitwise_count(first.hashes[of_first][:, None] ^ second.hashes[part])
                for i, j in zip(*np.nonzero(bits <= most_bits), strict=True):
                    found[int(of_first[i]), int(part[j])] = int(bits[i, j])
    pairs = [(i, j, bits) for (i, j), bits in found.items() if first.digests[i] != second.digests[j]]
    return sorted(pairs, key=lambda pair: (pair[2], pair[0], pair[1]))
