"""Building a model for its shapes alone: its tensors have no values, so that it takes neither memory nor time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def shapes_only() -> Iterator[None]:
    """Tensors that are made inside are on the device meta; no random number is drawn."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]), _NothingDrawn():
        yield


class _NothingDrawn(TorchFunctionMode):
    """Initialization is left out: normal numbers on the device meta import torch._dynamo, which takes seconds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.normal_ or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
