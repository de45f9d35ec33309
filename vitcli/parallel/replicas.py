"""Each process has all of the task, and gradients are averaged: DDP. With one process there is nothing to average."""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn

from vitcli.parallel.parts import Compiler, compile_each, parts_of

Module = TypeVar("Module", bound=nn.Module)

#: DDP's option not to copy rank 0's buffers at each forward pass; renamed in torch 2.15
_BUFFERS_OPTION = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(nn.parallel.DistributedDataParallel).parameters
)


class Replicas:
    """`parallel: ddp`. Buffers stay apart until `distributed.average_buffers`.

    Args:
        task: on `device`, that of this process.
        compiler: of its parts; None: nothing is compiled.
    """

    has_all = True  #: whether this process alone can save the run

    def __init__(self, task: nn.Module, num_ranks: int, device: torch.device, compiler: Compiler | None = None) -> None:
        self.compiler = compiler
        if compiler:
            compile_each(parts_of(task), compiler)
        self.module = task if num_ranks == 1 else _ddp(task, device)

    def unsynchronized(self) -> AbstractContextManager:
        """In this block gradients stay with their rank: for all micro-steps of a step but the last."""
        ddp = nn.parallel.DistributedDataParallel
        return self.module.no_sync() if isinstance(self.module, ddp) else nullcontext()

    def in_one_piece(self, module: Module) -> Module:
        """`module`, a part of the task or its average, such that any rank can call it alone: itself."""
        return module

    @contextmanager
    def filled(self, module: nn.Module) -> Iterator[None]:
        """In this block, `module`, built from what `in_one_piece` returned, has its values and runs as it is written.

        Compiled parts are for training: an evaluation would compile them again, in another mode and for other sizes.
        """
        with torch.compiler.set_stance("force_eager") if self.compiler else nullcontext():
            yield


def _ddp(task: nn.Module, device: torch.device) -> nn.Module:
    no_sync_of_buffers: dict[str, Any] = {_BUFFERS_OPTION: False}
    device_ids = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(
        task, device_ids=device_ids, gradient_as_bucket_view=True, **no_sync_of_buffers
    )
