"""Each process keeps some rows of every parameter, gradient and moment, and sees the others while it needs them: FSDP2.

    forward, backward    a block's parameters are gathered before it runs and dropped after it
    step                 each rank moves its own rows (`own_part`); the norm of the gradients is that of all rows
    checkpoint           one tensor after the other is put together (`whole`): the files are those of any other run
    evaluation           the network is put together once (`Twins`), because ranks may have different numbers of batches

Source: torch.distributed.fsdp.fully_shard (Zhao et al. 2023, arXiv 2304.11277; the per-parameter form of PyTorch 2.6).
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from vitcli.parallel.parts import Compiler, blocks_of, compile_each
from vitcli.parallel.shards import whole

Module = TypeVar("Module", bound=nn.Module)


class Shards:
    """`parallel: fsdp`. Buffers are not sharded: they stay apart until `distributed.average_buffers`.

    Parameters are gathered, and gradients summed, in float32. With mixed precision autocast chooses the type of each
    operation, so that the numbers are those of DDP; FSDP's own policy has one type for all of a block, norms included,
    which BatchNorm, and LayerNorm on CPUs, refuse.

    Args:
        task: on `device`, that of this process; its parameters become DTensors with the same names.
        average: the moving average of the network, or None; it is sharded too.
        compiler: of its blocks; None: nothing is compiled.
    """

    has_all = False  #: whether this process alone can save the run

    def __init__(
        self,
        task: nn.Module,
        average: nn.Module | None,
        num_ranks: int,
        device: torch.device,
        compiler: Compiler | None = None,
    ) -> None:
        self.module = task
        modules = [module for module in (task, average) if module is not None]
        for module in modules:
            module.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]  # a shard is rows
        self.twins = Twins(modules)
        self.compiler = compiler
        if compiler:
            compile_each(blocks_of(task), compiler)
        mesh = init_device_mesh(device.type, (num_ranks,))
        for module in modules:
            for part in (*blocks_of(module), module):
                fully_shard(part, mesh=mesh)

    @contextmanager
    def unsynchronized(self) -> Iterator[None]:
        """In this block gradients stay with their rank, whole: for all micro-steps of a step but the last."""
        assert isinstance(self.module, FSDPModule)
        self.module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.module.set_requires_gradient_sync(True)

    def in_one_piece(self, module: Module) -> Module:
        """`module`, a part of the task or its average, such that any rank can call it alone once it is `filled`."""
        return self.twins.of(module)

    @contextmanager
    def filled(self, module: nn.Module) -> Iterator[None]:
        """In this block, `module`, built from what `in_one_piece` returned, has its values. Every rank must call it."""
        with self.twins.filled(module):
            yield


class Twins:
    """Copies of modules that are about to be sharded: the same buffers, and parameters without memory.

    A twin has values, all of them on every rank, only while it is `filled`.
    """

    def __init__(self, originals: Iterable[nn.Module]) -> None:
        self._twin_of: dict[int, Any] = {}  # id of an original -> its twin
        self._owner_of: dict[int, tuple[nn.Module, str]] = {}  # id of a twin's parameter -> the original's place
        for original in originals:
            shared: dict[int, object] = {id(buffer): buffer for buffer in original.buffers()}
            empty = {id(p): nn.Parameter(p.detach().to("meta"), requires_grad=False) for p in original.parameters()}
            twin = copy.deepcopy(original, {**shared, **empty})
            for theirs, ours in zip(original.modules(), twin.modules(), strict=True):
                self._twin_of[id(theirs)] = ours
                for name, parameter in ours.named_parameters(recurse=False):
                    self._owner_of[id(parameter)] = (theirs, name)

    def of(self, original: Module) -> Module:
        return self._twin_of[id(original)]

    @contextmanager
    @torch.no_grad()
    def filled(self, module: nn.Module) -> Iterator[None]:
        """Every rank must call it: the parameters that occur in `module` are put together, one after the other."""
        places = [
            (inner, name, parameter)
            for inner in module.modules()
            for name, parameter in inner.named_parameters(recurse=False)
            if id(parameter) in self._owner_of
        ]
        owners = {id(parameter): self._owner_of[id(parameter)] for _, _, parameter in places}
        complete = {
            key: nn.Parameter(whole(getattr(owner, name)), requires_grad=False) for key, (owner, name) in owners.items()
        }
        for inner, name, parameter in places:
            setattr(inner, name, complete[id(parameter)])
        try:
            yield
        finally:
            for inner, name, parameter in places:
                setattr(inner, name, parameter)
