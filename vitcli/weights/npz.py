"""Reads and writes NumPy's .npz files, the format of Google's vision transformers."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitcli.errors import DataError, WeightsError

#: JAX's bfloat16, which NumPy reads as two raw bytes
BFLOAT16 = np.dtype("V2")


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays in the file; bfloat16 stays bfloat16."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                _check_size(archive, entry)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _tensor(arrays[name]) for name in arrays.files}
    except Exception as error:  # zip, header and array can each be damaged in many ways
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            message = f"{path} holds Python objects; reading them would run code from the file"
            raise WeightsError(message, help="save plain arrays with the program that wrote it") from error
        raise DataError(f"{path} is damaged or cut off ({error})", help="download or copy it again") from error


def write_npz(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with open(path, "wb") as file:
        np.savez(file, **{name: _array(tensor) for name, tensor in tensors.items()})  # pyright: ignore[reportArgumentType]


def _check_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """ValueError if an array's header claims more than the file has: NumPy would allocate that memory first."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
    size = int(np.prod([float(length) for length in shape])) * dtype.itemsize
    if not dtype.hasobject and size > entry.file_size:
        raise ValueError(f"{entry.filename} claims {size:,} bytes of {entry.file_size:,}")


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array, order="C"))


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.contiguous()
    return tensor.view(torch.int16).numpy().view(BFLOAT16) if tensor.dtype == torch.bfloat16 else tensor.numpy()
