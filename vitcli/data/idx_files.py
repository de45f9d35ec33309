"""The files of MNIST and its relatives as they are published: arrays in the IDX format, compressed with gzip or not.

A file begins with 0, 0, 8 (unsigned bytes) and the number of dimensions, then each side as 4 bytes, the first one first
(Y. LeCun, C. Cortes, C. Burges, "The MNIST database").
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

from vitcli.errors import DataError

#: of an array; MNIST has 47 million
_MOST_BYTES = 1 << 30
_PARTS = {"train": "train", "val": "t10k"}


def read_idx_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Images (n, H, W) and labels (n,), uint8, of the files in `folder`; None if they are not all there.

    Raises:
        DataError: a file is damaged, or they do not belong together.
    """
    files = [_find(folder, f"{_PARTS[split]}-{name}") for name in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    if files[0] is None or files[1] is None:
        return None
    images, labels = _read(files[0], 3), _read(files[1], 1)
    if len(images) != len(labels) or not len(labels):
        raise DataError(f"{files[0]} has {len(images):,} images, {files[1].name} {len(labels):,} labels")
    return images, labels


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(file: Path, num_dims: int) -> np.ndarray:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stored:
            data = stored.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {error}", help="download it again") from None
    shape = [int.from_bytes(data[at : at + 4]) for at in range(4, 4 + 4 * num_dims, 4)]
    start, count = 4 + 4 * num_dims, int(np.prod(shape, dtype=object))
    if data[:4] != bytes([0, 0, 8, num_dims]) or len(data) != start + count:
        raise DataError(f"{file} is damaged, or no IDX file of {num_dims} dimensions", help="download it again")
    return np.frombuffer(data, np.uint8, count, start).reshape(shape)
