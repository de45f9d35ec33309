"""Evaluation batches that are made once: the evaluations of a run see the same pixels every time."""

from collections.abc import Callable, Iterator

import torch

from vitcli.data.batch import Batch
from vitcli.data.cached import LARGEST_PART, available_memory
from vitcli.data.loader import Batches


class KeptBatches:
    """The same batches, kept on their device after the first time, if they fit into half of the memory that is free.

    They are made again while one of them lacks an unreadable image, which may be repaired, or nobody has seen all.
    """

    def __init__(self, batches: Batches, *, available: Callable[[], int] | None = None) -> None:
        self.batches, self.available = batches, available or self._free
        self.kept: list[Batch] | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if self.kept is not None:
            yield from self.kept
            return
        kept: list[Batch] = []
        room = self.available() * LARGEST_PART
        for batch in self.batches:
            room -= sum(view.nbytes for view in batch.views)
            if room >= 0:
                kept.append(batch)
            yield batch
        if room >= 0 and not any(batch.bad for batch in kept):
            self.kept = kept

    def _free(self) -> int:
        device = self.batches.device
        return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
