"""The two files of a native network: what it computes (model.txt), and its tensors (model.safetensors).

model.txt says where each tensor lies, so that a program reads both files without a parser of JSON:

    tensor.blocks.0.qkv.weight=I8 1152x384 8192 442368      dtype, shape, first byte in the file, number of bytes

model.safetensors is an ordinary file of that format; any other tool can read it too.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vitcli.deploy.key_values import from_text, to_text
from vitcli.errors import DataError

TEXT = "model.txt"
WEIGHTS = "model.safetensors"
VERSION = 1
PREFIX = "tensor."
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "I8": torch.int8}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Description:
    """A native network.

    Attributes:
        values: the keys of model.txt and their values, without those of the tensors.
        tensors: as stored, in one of `DTYPES`.
    """

    values: dict[str, str]
    tensors: dict[str, Tensor]

    def integers(self, key: str) -> list[int]:
        """Whole numbers, separated by commas."""
        return [int(number) for number in self.values[key].split(",")]

    def numbers(self, key: str) -> list[float]:
        """Decimal numbers, separated by commas."""
        return [float(number) for number in self.values[key].split(",")]


def write_network(folder: Path, values: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    """Write both files; `tensors` are contiguous and on the CPU."""
    save_file(dict(tensors), folder / WEIGHTS)
    places = _places(folder / WEIGHTS)
    lines: dict[str, object] = {"native_version": VERSION, "weights": WEIGHTS}
    lines |= {"weights_bytes": (folder / WEIGHTS).stat().st_size, **values}
    for name, tensor in tensors.items():
        shape, (start, stop) = "x".join(map(str, tensor.shape)), places[name]
        lines[PREFIX + name] = f"{_NAMES[tensor.dtype]} {shape} {start} {stop - start}"
    (folder / TEXT).write_text(to_text(lines), encoding="utf-8")


def read_network(file: Path) -> Description:
    """The network that `file`, a model.txt, describes; DataError if it is not whole."""
    try:
        values = from_text(file.read_text(encoding="utf-8"))
        if values["native_version"] != str(VERSION):
            raise ValueError(f"it has version {values['native_version']}, not {VERSION}")
        content = bytearray((file.parent / values["weights"]).read_bytes())
        if len(content) != int(values["weights_bytes"]):
            raise ValueError(f"{values['weights']} has {len(content):,} bytes, not {values['weights_bytes']}")
        places = {key: values.pop(key) for key in list(values) if key.startswith(PREFIX)}
        tensors = {key.removeprefix(PREFIX): _tensor(key, place, content) for key, place in places.items()}
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{file} does not describe a network: {error}", help="export it again") from None
    return Description(values, tensors)


def _places(file: Path) -> dict[str, tuple[int, int]]:
    """Name -> first byte and end of each tensor in a safetensors file."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    start = 8 + length
    return {
        name: (start + entry["data_offsets"][0], start + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _tensor(key: str, place: str, content: bytearray) -> Tensor:
    dtype, shape, start, size = place.split(" ")
    sides = [int(side) for side in shape.split("x")]
    count = math.prod(sides)
    if int(start) + int(size) > len(content) or count * DTYPES[dtype].itemsize != int(size):
        raise ValueError(f"{key} does not fit into the file, or its shape not to its size")
    return torch.frombuffer(content, dtype=DTYPES[dtype], count=count, offset=int(start)).view(sides)
