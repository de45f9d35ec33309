"""CUDA streams without a GPU: meta tensors stand for those of the device, and a race between two streams raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Race(AssertionError):
    """A stream uses what another one may still be writing, or memory that may be given away while it is in use."""


class FakeStream:
    """seen: other stream -> up to which kernel of all this one has waited for it."""

    def __init__(self, streams: "FakeStreams") -> None:
        self.streams = streams
        self.seen: dict[FakeStream, int] = {}

    def wait_stream(self, other: "FakeStream") -> None:
        self.seen[other] = self.streams.num_kernels


class FakeStreams(TorchDispatchMode):
    """Takes the place of torch.cuda's streams, and watches every operator on meta tensors.

    Memory belongs to the stream on which it was allocated: another one that uses it must be recorded, or the allocator
    gives it away as soon as Python drops the tensor.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.network = self.current = FakeStream(self)
        self.num_kernels = 0
        self.kept: list[Tensor] = []  # so that no storage gets the number of another
        self.writer: dict[int, tuple[FakeStream, int]] = {}  # storage -> who wrote it last, and when
        self.users: dict[int, set[FakeStream]] = {}  # storage -> streams that the allocator knows of
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream(self))
        monkeypatch.setattr(torch.cuda, "stream", self.switched)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: self.users[storage(tensor)].add(stream))

    @contextmanager
    def switched(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, outputs = on_device((args, kwargs)), on_device(result)
        if inputs or outputs:
            self.num_kernels += 1
        for tensor in inputs:
            self.check(str(func), tensor)
        for tensor in outputs:
            self.kept.append(tensor)
            if func._schema.is_mutable or storage(tensor) not in self.writer:
                self.writer[storage(tensor)] = self.current, self.num_kernels
                self.users.setdefault(storage(tensor), {self.current})
        return result

    def check(self, name: str, tensor: Tensor) -> None:
        writer, time = self.writer.get(storage(tensor), (self.current, 0))
        if writer is not self.current and time > self.current.seen.get(writer, 0):
            raise Race(f"{name} reads what another stream may still be writing")
        if self.current not in self.users.get(storage(tensor), {self.current}):
            raise Race(f"{name} reads memory of another stream, whose allocator does not know of it")


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def on_device(values: Any) -> list[Tensor]:
    return [v for v in torch.utils._pytree.tree_leaves(values) if isinstance(v, Tensor) and v.is_meta]
