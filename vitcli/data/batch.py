"""The batch that the loader makes and a task or an evaluator takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class BadSample:
    """An unreadable image, and the sample that replaced it (None: none did).

    name: as the source calls it; its path where none replaced it.
    """

    index: int
    name: str
    reason: str
    replaced_by: int | None = None


@dataclass(frozen=True)
class Batch:
    """The samples of one micro-step, or of an evaluation.

    Attributes:
        views: one tensor per independently augmented view, (B, C, H, W): uint8 from the loader, float32 after a task
            has prepared it. An evaluation with many crops has one view of shape (B, crops, C, H, W).
        targets: (B,) int64, an index into the class names; of multi-label data (B, num_classes) bool, whether the image
            has the class; (B, num_classes) float32 after mixing; None without labels.
        indices: (B,) int64, the samples after replacement of unreadable ones, which `bad` lists.
        epoch, step, micro: the place in the run, counted from 0.
        block: the place in the global batch (`BatchPlan.block`), however it is spread over ranks and micro-steps.
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
        """The only view of each sample."""
        assert len(self.views) == 1, f"{len(self.views)} views"
        return self.views[0]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What lies on the device."""
        return self.views if self.targets is None else (*self.views, self.targets)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; nothing waits for the copy."""
        views = tuple(view.to(device, non_blocking=True) for view in self.views)
        targets = None if self.targets is None else self.targets.to(device, non_blocking=True)
        return replace(self, views=views, targets=targets)

    def __getstate__(self) -> dict[str, Any]:
        """What a worker sends: each tensor costs the training process a connection (1 ms), an array nothing."""
        arrays = {"indices": self.indices.numpy(), "targets": None if self.targets is None else self.targets.numpy()}
        return vars(self) | arrays

    def __setstate__(self, state: dict[str, Any]) -> None:
        targets = None if state["targets"] is None else torch.from_numpy(state["targets"])
        vars(self).update(state, indices=torch.from_numpy(state["indices"]), targets=targets)

    def channels_last(self) -> "Batch":
        return replace(self, views=tuple(view.contiguous(memory_format=torch.channels_last) for view in self.views))

    def pin_memory(self, device: str | torch.device | None = None) -> "Batch":
        """The same batch in page-locked memory; torch's loader calls this."""
        targets = None if self.targets is None else self.targets.pin_memory()
        return replace(self, views=tuple(view.pin_memory() for view in self.views), targets=targets)


def join(pieces: Sequence[Batch]) -> Batch:
    """One batch of all samples of the `pieces`, which are at the same place in the run; views stay on their device."""
    if len(pieces) == 1:
        return pieces[0]
    views = zip(*(piece.views for piece in pieces if piece.views), strict=True)
    targets = [piece.targets for piece in pieces if piece.targets is not None]
    return replace(
        pieces[0],
        views=tuple(map(torch.cat, views)),
        targets=torch.cat(targets) if targets else None,
        indices=torch.cat([piece.indices for piece in pieces]),
        bad=tuple(chain.from_iterable(piece.bad for piece in pieces)),
    )
