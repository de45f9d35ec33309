"""A mode in which meta tensors stand for those of a GPU, and what the host would wait for raises."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: operators whose result, or whose size, the host reads from the device
_READS = {
    "aten._local_scalar_dense", "aten.item", "aten.is_nonzero", "aten.equal", "aten.nonzero", "aten.masked_select",
    "aten._unique2", "aten.unique_dim", "aten.unique_consecutive", "aten.repeat_interleave.Tensor", "aten.bincount",
}  # fmt: skip
_COPIES = {"aten._to_copy", "aten.copy_", "aten.copy", "aten._copy_from"}


class Waited(AssertionError):
    """The host would wait for the device."""


class NothingWaits(TorchDispatchMode):
    """Raises Waited for a number that is read from a meta tensor, and for a copy between the CPU and one.

    A copy to the device may only be `non_blocking`. Meta tensors have no values, so reading one raises in any case;
    copies to the device do not, and on a GPU each of them would wait for all that was started before it.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        on_device = any(tensor.is_meta for tensor in _tensors((args, kwargs)))
        if on_device and any(name.startswith(read) for read in _READS):
            raise Waited(f"{name} reads from the device")
        if on_device and name.startswith("aten.index") and any(t.dtype == torch.bool for t in _tensors(args[1])):
            raise Waited(f"{name} with a mask: the host must know how many are chosen")
        result = func(*args, **kwargs)
        if name.rpartition(".")[0] in _COPIES and not _may_go_on(args, kwargs, result):
            raise Waited(f"{name} copies between host and device")
        return result


def _may_go_on(args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> bool:
    """Whether the host goes on while the copy is made, or both tensors are on the same side."""
    source = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else args[0]
    is_non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
    return source.is_meta == result.is_meta or (result.is_meta and is_non_blocking)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in torch.utils._pytree.tree_leaves(values) if isinstance(value, Tensor)]
