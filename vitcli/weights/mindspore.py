"""Reads MindSpore's .ckpt files without MindSpore: a message of protocol buffers, whose every claim is checked.

A large tensor is split into several values with the same tag.
"""

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from torch import Tensor

from vitcli.errors import DataError, WeightsError

DTYPES = {
    "Float16": torch.float16, "Float32": torch.float32, "Float64": torch.float64, "BFloat16": torch.bfloat16,
    "Int8": torch.int8, "Int16": torch.int16, "Int32": torch.int32, "Int64": torch.int64,
    "UInt8": torch.uint8, "UInt16": torch.uint16, "UInt32": torch.uint32, "UInt64": torch.uint64, "Bool": torch.bool,
}  # fmt: skip
#: of norms; a gamma without a beta is a layer scale
NORM_NAMES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
#: state of optimizers
OPTIMIZER = ("moment1.", "moment2.", "moments.")
#: field 1 (a value) and its length, then field 1 (a tag)
BEGINNING = re.compile(rb"\x0a[\x80-\xff]{0,9}[\x00-\x7f]\x0a", re.DOTALL)
#: mindspore/ccsrc/utils/checkpoint.proto; texts are bytes, which are decoded here, and all fields are optional
SCHEMA = """
name: "vitcli/mindspore_checkpoint.proto"
message_type {
  name: "TensorProto"
  field { number: 1 name: "dims" type: TYPE_INT64 label: LABEL_REPEATED }
  field { number: 2 name: "tensor_type" type: TYPE_BYTES label: LABEL_OPTIONAL }
  field { number: 3 name: "tensor_content" type: TYPE_BYTES label: LABEL_OPTIONAL }
}
message_type {
  name: "Value"
  field { number: 1 name: "tag" type: TYPE_BYTES label: LABEL_OPTIONAL }
  field { number: 2 name: "tensor" type: TYPE_MESSAGE type_name: ".TensorProto" label: LABEL_OPTIONAL }
}
message_type {
  name: "Checkpoint"
  field { number: 1 name: "value" type: TYPE_MESSAGE type_name: ".Value" label: LABEL_REPEATED }
}
"""


def is_mindspore(head: bytes) -> bool:
    """Whether a file that begins with `head` (20 bytes or more) is such a message."""
    return BEGINNING.match(head) is not None


def read_mindspore(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The network's tensors under PyTorch's names for norms, and the single numbers and texts stored with them."""
    try:
        parts = _parts(path)
        values = {name: _value(*part) for name, part in parts.items() if not name.startswith(OPTIMIZER)}
    except (DecodeError, ValueError) as error:
        raise DataError(f"{path} is damaged or cut off ({error})", help="download or copy it again") from None
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor) and value.ndim}
    meta = {name: value for name, value in values.items() if name not in tensors}
    plain = {name: value.item() if isinstance(value, Tensor) else value for name, value in meta.items()}
    return {_torch_name(name, tensors): tensor for name, tensor in tensors.items()}, plain


@cache
def _checkpoint_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(SCHEMA, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Checkpoint"))


def _parts(path: Path) -> dict[str, tuple[list[int], str, list[bytes]]]:
    """{tag: (dims, tensor_type, the pieces of its content)}"""
    checkpoint = _checkpoint_class().FromString(path.read_bytes())
    if len(UnknownFieldSet(checkpoint)):
        raise ValueError("it has fields that a checkpoint does not have")
    parts: dict[str, tuple[list[int], str, list[bytes]]] = {}
    for value in checkpoint.value:
        name, tensor = value.tag.decode(), value.tensor
        if not value.HasField("tag"):
            raise ValueError("a value has no name")
        if not value.HasField("tensor"):
            raise WeightsError(f"{path}: {name} is not a tensor", help="only plain tensors of MindSpore can be read")
        if not (tensor.HasField("tensor_type") and tensor.HasField("tensor_content")):
            raise ValueError("a tensor has no type or no content")
        kind = tensor.tensor_type.decode()
        if kind != "random_op":  # the state of a random generator
            _, _, pieces = parts.setdefault(name, (list(tensor.dims), kind, []))
            pieces.append(tensor.tensor_content)
    return parts


def _value(dims: list[int], kind: str, pieces: list[bytes]) -> Tensor | str:
    content = bytearray().join(pieces)
    if kind == "str":  # as NumPy stores text
        return content.decode("utf-32-le").rstrip("\0")
    if kind not in DTYPES:
        raise ValueError(f"tensor type {kind[:20]!r} is unknown")
    shape = [] if dims == [0] else dims  # a single number
    fits = len(shape) <= 8 and min(shape, default=0) >= 0
    if not fits or math.prod(shape) * DTYPES[kind].itemsize != len(content):
        raise ValueError(f"a tensor of shape {shape[:8]} with {len(content)} bytes")
    return torch.frombuffer(content, dtype=DTYPES[kind]).view(shape)


def _torch_name(name: str, names: Mapping[str, Tensor]) -> str:
    module, _, last = name.rpartition(".")
    in_norm = f"{module}.gamma" in names and f"{module}.beta" in names
    return f"{module}.{NORM_NAMES[last]}" if in_norm and last in NORM_NAMES else name
