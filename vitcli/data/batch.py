"""What travels from the loader through the task: the only kind of batch there is."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class BadSample:
    """An unreadable image and the sample that took its place (None: none did)."""

    index: int
    name: str
    reason: str
    replaced_by: int | None = None


@dataclass(frozen=True)
class Batch:
    """Samples of one micro-step, or of an evaluation.

    views: one tensor per independently augmented view, (B, C, H, W): uint8 as the loader gives it, float32 once a task
        has prepared it. An evaluation with many crops has one view of shape (B, crops, C, H, W).
    targets: (B,) int64, an index into the source's class names; (B, num_classes) float32 once mixed; None without
        labels.
    indices: (B,) int64, the samples after replacement of unreadable ones, which `bad` lists.
    epoch, step, micro: the place in the run, counted from 0; block: the place in the global batch
        (`BatchPlan.block`), the same however the batch is spread over ranks and micro-steps.
    """

    views: tuple[Tensor, ...]
    targets: Tensor | None
    indices: Tensor
    bad: tuple[BadSample, ...] = field(default=())
    epoch: int = 0
    step: int = 0
    micro: int = 0
    block: int = 0

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def images(self) -> Tensor:
        """The only view."""
        assert len(self.views) == 1, f"{len(self.views)} views"
        return self.views[0]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; nothing waits for the copy."""
        views = tuple(view.to(device, non_blocking=True) for view in self.views)
        targets = None if self.targets is None else self.targets.to(device, non_blocking=True)
        return replace(self, views=views, targets=targets)

    def channels_last(self) -> "Batch":
        """The same batch in memory layout NHWC."""
        return replace(self, views=tuple(view.contiguous(memory_format=torch.channels_last) for view in self.views))

    def pin_memory(self, device: str | torch.device | None = None) -> "Batch":
        """For torch's loader."""
        targets = None if self.targets is None else self.targets.pin_memory()
        return replace(self, views=tuple(view.pin_memory() for view in self.views), targets=targets)
