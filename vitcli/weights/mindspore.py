"""Reads MindSpore's .ckpt files without MindSpore: a protocol-buffer message, checked byte by byte.

    Checkpoint   1: Value, repeated
    Value        1: tag (text)    2: TensorProto
    TensorProto  1: dims (int64, repeated)    2: tensor_type (text)    3: tensor_content (bytes)

A large tensor is cut into several values with one tag. Source: mindspore/ccsrc/utils/checkpoint.proto.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitcli.errors import DataError, WeightsError

DTYPES = {
    "Float16": torch.float16, "Float32": torch.float32, "Float64": torch.float64, "BFloat16": torch.bfloat16,
    "Int8": torch.int8, "Int16": torch.int16, "Int32": torch.int32, "Int64": torch.int64,
    "UInt8": torch.uint8, "UInt16": torch.uint16, "UInt32": torch.uint32, "UInt64": torch.uint64, "Bool": torch.bool,
}  # fmt: skip
#: of norms; a lone gamma is a layer scale
NORM_NAMES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
#: what optimizers keep beside the network
OPTIMIZER = ("moment1.", "moment2.", "moments.")
VARINT, FIXED64, MESSAGE, FIXED32 = 0, 1, 2, 5


class _Broken(ValueError):
    """The bytes are not what the format says."""


def is_mindspore(head: bytes) -> bool:
    """Whether a file that begins with `head` (some 20 bytes) is such a message: a value that begins with a tag."""
    try:
        number, _, start = _key(memoryview(head), 0)
        _, start = _varint(memoryview(head), start)
        tag_number, tag_kind, _ = _key(memoryview(head), start)
    except _Broken:
        return False
    return number == 1 and head[0] == 1 << 3 | MESSAGE and (tag_number, tag_kind) == (1, MESSAGE)


def read_mindspore(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The network's tensors under PyTorch's names for norms, and the single numbers and texts beside them.

    Raises:
        DataError: the file is cut off or damaged. WeightsError: it holds something else than tensors.
    """
    try:
        parts = _parts(memoryview(path.read_bytes()), path)
        values = {name: _value(*part) for name, part in parts.items() if not name.startswith(OPTIMIZER)}
    except ValueError as error:
        raise DataError(f"{path} is damaged or cut off ({error})", help="download or copy it again") from None
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor) and value.ndim}
    meta = {name: value for name, value in values.items() if name not in tensors}
    plain = {name: value.item() if isinstance(value, Tensor) else value for name, value in meta.items()}
    return {_torch_name(name, tensors): tensor for name, tensor in tensors.items()}, plain


def _torch_name(name: str, names: dict[str, Tensor]) -> str:
    module, _, last = name.rpartition(".")
    in_norm = f"{module}.gamma" in names and f"{module}.beta" in names
    return f"{module}.{NORM_NAMES[last]}" if in_norm and last in NORM_NAMES else name


def _parts(data: memoryview, path: Path) -> dict[str, tuple[list[int], str, list[memoryview]]]:
    """{tag: (dims, tensor_type, the pieces of its content)}"""
    parts: dict[str, tuple[list[int], str, list[memoryview]]] = {}
    for number, value in _fields(data):
        if number != 1 or not isinstance(value, memoryview):
            raise _Broken(f"field {number} is unknown")
        fields = dict(_fields(value))
        tag, tensor = fields.get(1), fields.get(2)
        if not isinstance(tag, memoryview):
            raise _Broken("a value has no name")
        name = bytes(tag).decode()
        if not isinstance(tensor, memoryview):
            raise WeightsError(f"{path}: {name} is no tensor", help="only plain tensors can be read out of MindSpore")
        dims, kind, content = _tensor(tensor)
        if kind != "random_op":  # the state of a random generator
            _, _, pieces = parts.setdefault(name, (dims, kind, []))
            pieces.append(content)
    return parts


def _tensor(message: memoryview) -> tuple[list[int], str, memoryview]:
    dims: list[int] = []
    kind = content = None
    for number, value in _fields(message):
        if number == 1:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif number == 2 and isinstance(value, memoryview):
            kind = bytes(value).decode()
        elif number == 3 and isinstance(value, memoryview):
            content = value
    if kind is None or content is None:
        raise _Broken("a tensor has no type or no content")
    return dims, kind, content


def _value(dims: list[int], kind: str, pieces: list[memoryview]) -> Tensor | str:
    content = bytearray().join(pieces)
    if kind == "str":  # as numpy stores texts
        return content.decode("utf-32-le").rstrip("\0")
    if kind not in DTYPES:
        raise _Broken(f"tensor type {kind[:20]!r} is unknown")
    shape = [] if dims == [0] else dims  # a single number
    if len(shape) > 8 or math.prod(shape) * DTYPES[kind].itemsize != len(content):
        raise _Broken(f"a tensor of shape {shape[:8]} with {len(content)} bytes")
    return torch.frombuffer(content, dtype=DTYPES[kind]).view(shape)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, its value) one after the other; every length is checked before it is used."""
    at = 0
    while at < len(data):
        number, kind, at = _key(data, at)
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == MESSAGE:
            length, at = _varint(data, at)
        else:
            length = {FIXED64: 8, FIXED32: 4}.get(kind, -1)
        if not 0 <= length <= len(data) - at:
            raise _Broken(f"a field of {length} bytes where {len(data) - at} are left")
        yield number, data[at : at + length]
        at += length


def _packed(data: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(data):
        number, at = _varint(data, at)
        numbers.append(number)
    return numbers


def _key(data: memoryview, at: int) -> tuple[int, int, int]:
    key, at = _varint(data, at)
    return key >> 3, key & 7, at


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """(number, position behind it): seven bits a byte, the lowest first, the eighth bit says that more follow."""
    number = 0
    for i in range(10):
        if at + i >= len(data):
            raise _Broken("the file ends inside a number")
        byte = data[at + i]
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number, at + i + 1
    raise _Broken("a number of more than 64 bits")
