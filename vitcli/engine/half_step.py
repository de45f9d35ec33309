"""Undoes a step that failed before it changed the weights, or whose gradients are not finite."""

from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

from vitcli.optim.device_step import bits_where, put_back_where


class HalfStep:
    """Keeps the task's buffers as they were before the step.

    Forward passes change them (BatchNorm's statistics) before the optimizer changes anything. All else that a
    checkpoint holds changes after the last moment in which another rank or the loader can fail.
    """

    def __init__(self, task: nn.Module) -> None:
        groups = groupby(sorted(task.buffers(), key=_kind), key=_kind)  # one kernel for each kind
        self.buffers = [list(group) for _, group in groups]
        self.before = [[buffer.clone() for buffer in group] for group in self.buffers]
        self.state: Literal["complete", "can be undone", "cannot be undone"] = "complete"

    @torch.no_grad()
    def begin(self) -> None:
        """Remember the buffers."""
        for before, buffers in zip(self.before, self.buffers, strict=True):
            torch._foreach_copy_(before, buffers)  # pyright: ignore[reportPrivateImportUsage]
        self.state = "can be undone"

    def change_weights(self) -> None:
        self.state = "cannot be undone"

    def complete(self) -> None:
        self.state = "complete"

    @torch.no_grad()
    def undo(self) -> bool:
        """Go back to the last complete step if need be; whether that was possible."""
        if self.state == "can be undone":
            for before, buffers in zip(self.before, self.buffers, strict=True):
                torch._foreach_copy_(buffers, before)  # pyright: ignore[reportPrivateImportUsage]
            self.state = "complete"
        return self.state == "complete"

    @torch.no_grad()
    def put_back_where(self, flag: Tensor) -> None:
        """Give the buffers their values before the step where `flag` () is true; the host does not wait for it."""
        for before, buffers in zip(self.before, self.buffers, strict=True):
            put_back_where(flag, buffers, bits_where(flag, before))


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype)
