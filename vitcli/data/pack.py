"""Writes a split into one file with an index, which `sources/packed.py` reads.

Images are appended to images.bin, and a row for each to a journal, so that an interrupted packing continues. The index
is made of the journal at the end and gets its name last: without it, the data is not complete.
"""

import json
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image
from safetensors.numpy import save_file

from vitcli.data.bands import Picture, bands_of
from vitcli.data.decode import BadImage
from vitcli.data.packed_names import PackedNames
from vitcli.data.pixel_format import DEEP
from vitcli.data.pixels import in_array
from vitcli.data.source import Source
from vitcli.data.sources.packed import ENTRY, IMAGES, INDEX, VERSION
from vitcli.errors import DataError, UsageError

JOURNAL, SETTINGS = "journal.partial", "settings.partial"
#: bytes; each image starts at a multiple of it
_ALIGNMENT = 64
#: rows of the journal whose images are compared with their checksums when a packing continues
_CHECKED = 64


@dataclass(frozen=True)
class Packing:
    """How images are stored.

    store: "files": the file of each image as it is; "raw": its pixels, which need no decoding. shorter_side: px; an
    image whose shorter side is longer is resized to it, and stored as JPEG of this `quality` (1 to 100), or raw.
    """

    store: Literal["files", "raw"] = "files"
    shorter_side: int | None = None
    quality: int = 92


@dataclass
class Packed:
    """What came of it."""

    num_images: int
    num_bytes: int
    num_resized: int
    bad: list[BadImage] = field(default_factory=list)  #: left out


class _Made(NamedTuple):
    payload: bytes
    shape: tuple[int, int, int] = (0, 0, 0)  #: height, width, channels of pixels; zeros for a file
    resized: bool = False


def pack(
    source: Source,
    folder: Path,
    packing: Packing,
    *,
    skips: bool = False,
    advance: Callable[[int], object] = lambda _: None,
) -> Packed:
    """Write all images of `source` into `folder`, in their order; what another call has begun is continued.

    All images are decoded, to find those that cannot be.

    Args:
        skips: leave unreadable images out, and list them in the result.
        advance: called with the number of images that were done.

    Raises:
        UsageError: the folder holds packed data, or was begun with other settings or other data.
        DataError: when all readable images are packed: the others, or that there are none.
    """
    _begin(source, folder, packing)
    bad: list[BadImage] = []
    num_resized = 0
    with (folder / IMAGES).open("r+b") as images, (folder / JOURNAL).open("r+b") as journal:
        num_done, left_out = _continued(images, journal)
        bad += [made for index in left_out if isinstance(made := _make(source, packing, index), BadImage)]
        advance(num_done)
        for made in _in_order(source, packing, num_done):
            journal.write(_appended(images, made).tobytes())
            bad += [made] if isinstance(made, BadImage) else []
            num_resized += not isinstance(made, BadImage) and made.resized
            advance(1)
        for file in (images, journal):
            file.flush()
            os.fsync(file.fileno())
        num_bytes = images.tell()
    if bad and not skips:
        lines = [f"  {image.path}: {image.reason}" for image in bad]
        message = f"{len(bad):,} of {len(source):,} images cannot be read\n" + "\n".join(lines)
        raise DataError(message, help="fix or remove them, or continue without them: --on_bad_image skip")
    num_images = _finish(source, folder)
    return Packed(num_images, num_bytes, num_resized, bad)


def _begin(source: Source, folder: Path, packing: Packing) -> None:
    """The files of a packing, new or as another call left them."""
    fingerprint = json.dumps(source.fingerprint(), sort_keys=True)
    settings = json.dumps({"version": VERSION, "data": fingerprint, "packing": asdict(packing)})
    if (folder / INDEX).exists():
        raise UsageError(f"{folder} holds packed data already", help="give another -o, or remove it")
    if (folder / SETTINGS).exists():
        if (folder / SETTINGS).read_text(encoding="utf-8") != settings:
            message = f"{folder} was begun with other settings, or the data has changed since"
            raise UsageError(message, help="remove it, or give another -o")
        return
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", help="give another -o")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (IMAGES, JOURNAL):
        (folder / name).touch()
    (folder / SETTINGS).write_text(settings, encoding="utf-8")  # last: only a folder with it is continued


def _continued(images: BinaryIO, journal: BinaryIO) -> tuple[int, list[int]]:
    """The number of images that are done, and which of them were left out; both files end there, ready to go on."""
    entries = np.frombuffer(journal.read()[: _whole(journal.tell())], dtype=ENTRY)
    num_done = len(entries)
    for row in range(len(entries) - 1, max(-1, len(entries) - 1 - _CHECKED), -1):
        offset, length, crc32 = (int(entries[row][name]) for name in ("offset", "length", "crc32"))
        images.seek(offset)
        if zlib.crc32(images.read(length)) != crc32:
            num_done = row
    end = int(entries[num_done - 1]["offset"] + entries[num_done - 1]["length"]) if num_done else 0
    images.truncate(end)
    images.seek(end)
    journal.truncate(num_done * ENTRY.itemsize)
    journal.seek(num_done * ENTRY.itemsize)
    return num_done, np.flatnonzero(entries[:num_done]["length"] == 0).tolist()


def _whole(size: int) -> int:
    """Bytes of the rows that are complete."""
    return size // ENTRY.itemsize * ENTRY.itemsize


def _in_order(source: Source, packing: Packing, start: int) -> Iterator[_Made | BadImage]:
    """What is stored of each image from `start` on; made by threads, a few images ahead."""
    num_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(num_threads) as pool:
        indices = iter(range(start, len(source)))

        def submit(count: int) -> list[Future[_Made | BadImage]]:
            return [pool.submit(_make, source, packing, index) for index in islice(indices, count)]

        ahead = deque(submit(4 * num_threads))
        while ahead:
            made = ahead.popleft().result()
            ahead.extend(submit(1))
            yield made


def _make(source: Source, packing: Packing, index: int) -> _Made | BadImage:
    """What is stored of one image, or why nothing can be."""
    try:
        image = source.load(index)
    except BadImage as error:
        return error
    is_deep = any(band.mode in DEEP for band in bands_of(image))
    limit = packing.shorter_side
    is_large = limit is not None and min(image.size) > limit
    file = source.file(index) if packing.store == "files" else None
    if file is not None and (not is_large or is_deep or len(image.getbands()) not in (1, 3)):
        return _Made(file)
    if is_deep:
        help = "store files, or convert the images to 8 bits"
        return BadImage(source.name(index), "more than 8 bits per channel cannot be stored raw", help)
    if is_large and limit is not None:
        ratio = limit / min(image.size)
        image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.BICUBIC)
    if file is not None:
        return _Made(_jpeg(image, packing.quality), resized=True)
    values = np.ascontiguousarray(in_array(image).values)
    return _Made(values.tobytes(), values.shape, is_large)  # pyright: ignore[reportArgumentType]


def _jpeg(image: Picture, quality: int) -> bytes:
    values = np.ascontiguousarray(in_array(image).values)
    return simplejpeg.encode_jpeg(values, quality, "GRAY" if values.shape[2] == 1 else "RGB", "420")


def _appended(images: BinaryIO, made: _Made | BadImage) -> np.ndarray:
    """Append an image to the file; its row in the journal, of length 0 if it is left out."""
    entry, end = np.zeros((), dtype=ENTRY), images.tell()
    if isinstance(made, BadImage):
        entry["offset"] = end
        return entry
    offset = -(-end // _ALIGNMENT) * _ALIGNMENT
    images.write(bytes(offset - end) + made.payload)
    entry[()] = (offset, len(made.payload), *made.shape, zlib.crc32(made.payload))
    return entry


def _finish(source: Source, folder: Path) -> int:
    """Write the index of the images that are there, and return their number."""
    entries = np.fromfile(folder / JOURNAL, dtype=ENTRY)
    kept = np.flatnonzero(entries["length"] > 0)
    if not len(kept):
        raise DataError("no image can be read: there is nothing to pack")
    names = PackedNames(source.name(index) for index in kept.tolist())
    arrays = {"entries": entries[kept].view(np.uint8), "names": names.text, "name_ends": names.ends}
    if source.targets is not None:
        arrays["targets"] = np.ascontiguousarray(source.targets[kept])
    facts = json.loads((folder / SETTINGS).read_text(encoding="utf-8")) | {"class_names": source.class_names}
    if source.groups is not None:
        facts["groups"] = [source.group(index) for index in kept.tolist()]
    temporary = folder / f"{INDEX}.partial"
    save_file(arrays, temporary, {"packed": json.dumps(facts)})  # one key: safetensors writes keys in any order
    temporary.chmod((folder / IMAGES).stat().st_mode)  # that function allows it to the owner only
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.rename(folder / INDEX)
    for name in (JOURNAL, SETTINGS):
        (folder / name).unlink()
    return len(kept)
