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
#: px, of thumbnails
SIDE = 16


@dataclass
class Survey:
    """The readable images of `source`, in its order.

    Attributes:
        indices: (n,) int64, of the images in the source.
        sizes: (n, 2) int64, width and height in px.
        modes: of each image: Pillow's name, or the number of channels.
        digests: of each image's decoded pixels; equal for equal images only.
        hashes: (n,) uint64, 64-bit difference hashes (`difference_hash`); close for images that look alike.
        thumbnails: (n, 256) uint8, each image in gray at 16 x 16 px.
        unreadable: the index and the reason of each image that cannot be read.
    """

    source: Source
    indices: np.ndarray
    sizes: np.ndarray
    modes: list[str]
    digests: list[bytes]
    hashes: np.ndarray
    thumbnails: np.ndarray
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
    indices, sizes, modes, digests, hashes, thumbnails = zip(*seen, strict=True) if seen else ((),) * 6
    return Survey(
        source,
        np.array(indices, dtype=np.int64),
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
        list(modes),
        list(digests),
        np.array(hashes, dtype=np.uint64),
        np.array(thumbnails, dtype=np.uint8).reshape(-1, SIDE * SIDE),
        unreadable,
    )


def _look(source: Source, index: int) -> tuple[tuple[int, int], str, bytes, int, np.ndarray] | str:
    """Size, mode, digest, hash and thumbnail of one image; why it cannot be read."""
    try:
        source.check(index)
        image = source.load(index)
    except BadImage as error:
        return error.reason
    mode = f"{len(image.bands)} channels" if isinstance(image, Bands) else image.mode
    digest = hashlib.blake2b(f"{mode} {image.size}".encode(), digest_size=16)
    for band in bands_of(image):
        digest.update(np.asarray(band).tobytes())
    gray = in_gray(image)
    return image.size, mode, digest.digest(), difference_hash(gray), thumbnail(gray)


def in_gray(image: Picture) -> Image.Image:
    """Mode F, with the values of the image; of several bands the first, unless they are colors."""
    if isinstance(image, Bands):
        gray = image.bands[0]
    else:
        gray = image if image.mode in ("L", "I;16", "I", "F") else image.convert("RGB").convert("L")
    return gray if gray.mode == "F" else Image.fromarray(np.asarray(gray, dtype=np.float32))


def difference_hash(gray: Image.Image) -> int:
    """64 bits: whether each of 8 x 8 areas is darker than its right neighbor."""
    small = np.asarray(gray.resize((9, 8), Image.Resampling.BOX))
    bits = np.packbits(small[:, :-1] < small[:, 1:])
    return int.from_bytes(bits.tobytes())


def thumbnail(gray: Image.Image) -> np.ndarray:
    """(256,) uint8; more than 8 bits are divided by the brightest value."""
    small = np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
    return (small * min(1.0, 255 / max(1.0, float(small.max())))).clip(0, 255).astype(np.uint8)


def same_images(first: Survey, second: Survey) -> list[tuple[int, int]]:
    """(position in `first`, position in `second`) of each image of `second` and the first one with equal pixels.

    Of one survey: of each image that has been there before.
    """
    places = _first_places(first)
    pairs = [(places[digest], position) for position, digest in enumerate(second.digests) if digest in places]
    return [(i, j) for i, j in pairs if first is not second or i < j]


def similar_images(first: Survey, second: Survey, most_bits: int, most_pairs: int) -> list[tuple[int, int, int, float]]:
    """(position in `first`, position in `second`, bits, correlation) of images whose hashes differ in few bits.

    These are `most_bits`, at most 3: then one of the four quarters of the two hashes is equal, and only images that
    share one are compared. Images with equal pixels are left out, and counted once within each survey. Sorted by the
    correlation of their thumbnails (-1..1), as hashes take all trousers on a black ground for one picture. About
    `most_pairs` of them at most, since images that are empty but for some noise may all look alike.
    """
    assert most_bits < 4
    found: dict[tuple[int, int], tuple[int, float]] = {}
    positions = [np.array([*_first_places(some).values()], dtype=np.int64) for some in (first, second)]
    hashes = [some.hashes[which] for some, which in zip((first, second), positions, strict=True)]
    for i, j in _sharing_a_quarter(*hashes):
        bits = np.bitwise_count(hashes[0][i][:, None] ^ hashes[1][j])
        rows, columns = np.nonzero(bits <= most_bits)
        ours, theirs = positions[0][i[rows]], positions[1][j[columns]]
        alike = _correlation(first.thumbnails[ours], second.thumbnails[theirs])
        for *pair, number, value in zip(ours.tolist(), theirs.tolist(), bits[rows, columns], alike, strict=True):
            if first.digests[pair[0]] != second.digests[pair[1]]:
                found[pair[0], pair[1]] = int(number), float(value)
        if len(found) >= most_pairs:
            break
    return sorted(((*pair, *values) for pair, values in found.items()), key=lambda row: (-row[3], *row[:2]))


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n,) in -1..1, Pearson's, of thumbnails (n, 256); 0 where one of the two is of a single value."""
    one, other = (some - some.mean(axis=1, keepdims=True, dtype=np.float32) for some in (one, other))
    norm = np.sqrt((one * one).sum(1) * (other * other).sum(1))
    return np.divide((one * other).sum(1), norm, out=np.zeros_like(norm), where=norm > 0)


def _sharing_a_quarter(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions in two lists of hashes, in blocks of at most 2^18 pairs, all of which share 16 bits."""
    for shift in range(0, NUM_BITS, 16):
        ours, theirs = ((hashes >> np.uint64(shift)) & np.uint64(0xFFFF) for hashes in (first, second))
        order, values = np.argsort(ours, kind="stable"), np.unique(theirs)
        starts, ends = (np.searchsorted(ours[order], values, side) for side in ("left", "right"))
        for value, start, end in zip(values, starts, ends, strict=True):
            if start < end:
                of_second = np.flatnonzero(theirs == value)
                for part in np.array_split(of_second, -(-len(of_second) * int(end - start) // 2**18)):
                    yield order[start:end], part


def _first_places(found: Survey) -> dict[bytes, int]:
    """The position of the first image of each digest."""
    places: dict[bytes, int] = {}
    for position, digest in enumerate(found.digests):
        places.setdefault(digest, position)
    return places
