"""Images of a split in one file, with an index: `vitcli data pack` writes it, see docs/data.md for the layout.

    data_dir/train/images.bin  data_dir/train/index.safetensors      data_dir/val/…

Both files are mapped into memory, so a set of any size is opened at once, and worker processes share what was read.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vitcli.data.bands import Picture
from vitcli.data.decode import BadImage
from vitcli.data.jpeg import Jpeg
from vitcli.data.packed_names import PackedNames
from vitcli.data.pixels import Pixels
from vitcli.data.source import EncodedImages, MissingSplit
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset

IMAGES, INDEX = "images.bin", "index.safetensors"
VERSION = 1
#: one row of the array `entries`: where an image is in images.bin, and what it is
ENTRY = np.dtype(
    [
        ("offset", "<u8"),  # bytes
        ("length", "<u8"),
        ("height", "<u4"),  # px; of pixels only, 0 for a file
        ("width", "<u4"),
        ("channels", "<u4"),
        ("crc32", "<u4"),
    ]
)
#: the types that an index may hold; names as in the format safetensors
_DTYPES = {"U8": np.dtype(np.uint8), "I64": np.dtype("<i8"), "BOOL": np.dtype(bool)}
_AGAIN = "pack the data again, or copy it again with all files of the folder"


class PackedImages(EncodedImages):
    """The images of one split, in the folder `folder`.

    Raises:
        DataError: the index is not valid, or does not fit to images.bin.
    """

    def __init__(self, folder: Path, *, max_image_pixels: int) -> None:
        self.folder, self.max_image_pixels = folder, max_image_pixels
        metadata, arrays = read_index(folder / INDEX)
        self.packed_data: str = metadata["data"]
        super().__init__(len(self.entries), arrays.get("targets"), metadata["class_names"])
        self.groups = metadata.get("groups")
        _check_entries(self.entries, folder / IMAGES)

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return read_index(self.folder / INDEX)[1]

    @cached_property
    def entries(self) -> np.ndarray:
        """(n,) of type ENTRY."""
        return self._arrays["entries"].view(ENTRY)

    @cached_property
    def _images(self) -> np.ndarray:
        """images.bin, mapped: each process reads what it needs."""
        return _mapped(self.folder / IMAGES) if len(self.entries) else np.empty(0, np.uint8)

    @cached_property
    def _names(self) -> PackedNames:
        return PackedNames.of(self._arrays["names"], self._arrays["name_ends"])

    def __getstate__(self) -> dict[str, Any]:
        mapped = ("_arrays", "entries", "_images", "_names")  # a copy in another process maps the files itself
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def check(self, index: int) -> None:
        """BadImage if the bytes of the image `index` are not those that were written."""
        row = int(self.rows[index])
        if zlib.crc32(self._bytes(row)) != self.entries[row]["crc32"]:
            raise BadImage(self._name(row), f"damaged in {self.folder / IMAGES}: the checksum differs", _AGAIN)

    def _load(self, row: int) -> Picture | Pixels | Jpeg:
        entry = self.entries[row]
        if entry["channels"] == 0:
            return super()._load(row)
        return Pixels(self._payload(row).reshape(int(entry["height"]), int(entry["width"]), int(entry["channels"])))

    def _file(self, row: int) -> bytes | None:
        return self._bytes(row) if self.entries[row]["channels"] == 0 else None

    def _bytes(self, row: int) -> bytes:
        return self._payload(row).tobytes()

    def _payload(self, row: int) -> np.ndarray:
        start, length = int(self.entries[row]["offset"]), int(self.entries[row]["length"])
        return self._images[start : start + length]

    def _name(self, row: int) -> str:
        return self._names[row]

    def _digests(self) -> dict[str, str]:
        """Over the checksums and lengths of the chosen images, in their order, and the data that was packed."""
        entries = self.entries if len(self.rows) == len(self.entries) else self.entries[self.rows]
        digest = hashlib.sha256(self.packed_data.encode())
        digest.update(np.ascontiguousarray(entries["crc32"]).tobytes())
        digest.update(np.ascontiguousarray(entries["length"]).tobytes())
        return {"sha256": digest.hexdigest()}


def open_packed(section: Dataset, split: str, needs_labels: bool = True) -> PackedImages:
    """The split "train" or "val" of the packed data in `section.data_dir`.

    Raises:
        MissingSplit: there is no folder of that name.
        DataError: it was not packed completely, or is damaged.
    """
    if section.data_dir is None:
        raise UsageError("the data set 'packed' needs a folder", help="give --data_dir")
    folder = section.data_dir / (section.train_split if split == "train" else section.val_split)
    if not folder.is_dir():
        raise MissingSplit(f"there is no folder {folder}", help="give the folder that `vitcli data pack` made")
    if not (folder / INDEX).is_file():
        if (folder / IMAGES).exists():
            raise DataError(f"{folder} is not complete", help="run the same `vitcli data pack` again: it continues")
        help = "make one with: vitcli data pack DIR -o NEW, or read class folders with --dataset imagefolder"
        raise DataError(f"{folder} is not packed data: it has no {INDEX}", help=help)
    return PackedImages(folder, max_image_pixels=section.max_image_pixels)


def read_index(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and mapped arrays of an index, a file in the format safetensors.

    Raises:
        DataError: it is not valid, or of another version.
    """
    try:
        content = _mapped(file)
        (length,) = struct.unpack("<Q", content[:8].tobytes())
        header = json.loads(content[8 : 8 + length].tobytes())
        metadata = json.loads(header.pop("__metadata__")["packed"])
        arrays = {name: _array(content[8 + length :], **described) for name, described in header.items()}
        if metadata["version"] != VERSION:
            raise DataError(
                f"{file} has version {metadata['version']!r:.20}, not {VERSION}", help="pack the data again"
            )
        _check_shapes(metadata["class_names"], arrays)
    except DataError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise DataError(f"{file} is not a valid index: {error}", help=_AGAIN) from None
    return metadata, arrays


def _mapped(file: Path) -> np.ndarray:
    """(bytes,) uint8; a plain array, whose slices cost less than those of a memmap."""
    return np.memmap(file, dtype=np.uint8, mode="r").view(np.ndarray)


def _array(content: np.ndarray, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    start, end = data_offsets
    return content[start:end].view(_DTYPES[dtype]).reshape(shape)


def _check_shapes(class_names: list[str] | None, arrays: dict[str, np.ndarray]) -> None:
    """ValueError unless there is a name, and a target if there are classes, for each entry."""
    num_images, rest = divmod(arrays["entries"].size, ENTRY.itemsize)
    ends, targets = arrays["name_ends"], arrays.get("targets")
    reach_the_end = not num_images or int(ends[-1]) == arrays["names"].size
    if rest or len(ends) != num_images or not reach_the_end or (np.diff(ends) < 0).any():
        raise ValueError("it does not have one name for each image")
    if targets is None and class_names is None:
        return
    if targets is None or class_names is None or len(targets) != num_images:
        raise ValueError("it does not have one target for each image")
    if not all(isinstance(name, str) for name in class_names):
        raise ValueError("its class names are not text")
    num_classes = targets.shape[1] if targets.ndim == 2 else int(targets.max(initial=-1)) + 1
    if num_classes > len(class_names) or targets.min(initial=0) < 0:
        raise ValueError("its targets do not fit its classes")


def _check_entries(entries: np.ndarray, images: Path) -> None:
    """DataError unless every entry lies within the file, and pixels have as many bytes as they need."""
    size = images.stat().st_size if images.is_file() else 0
    for part in _parts(entries):
        ends, pixels = part["offset"] + part["length"], part["channels"] > 0
        needed = part["height"].astype(np.uint64) * part["width"] * part["channels"]
        if (ends > size).any() or (ends < part["offset"]).any():
            raise DataError(f"{images} has {size:,} bytes, and its index names images beyond that", help=_AGAIN)
        if (needed[pixels] != part["length"][pixels]).any():
            raise DataError(f"the index of {images} is not valid: the size of an image is wrong", help=_AGAIN)


def _parts(entries: np.ndarray, length: int = 2**20) -> Iterator[np.ndarray]:
    for start in range(0, len(entries), length):
        yield entries[start : start + length]
